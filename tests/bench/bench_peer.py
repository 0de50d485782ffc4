#!/usr/bin/env python3
"""Lorikeet and llama.cpp on the same work, in turns, as ratios.

    bench_peer.py --llama-bin FOLDER [--models "a.gguf b.gguf"] [--shape llama1b --type q8_0] [--parts single,batch,crowd8]
                  [--rounds 3] [--threads 2] [--results build/bench/peer.jsonl] [--minutes N] [--report]

parts:  single              prefill of 512 tokens and decode of 128, one stream, against llama-bench
        batch               decode with 8 and 16 streams, without and with one adapter, against llama-batched-bench
        crowd8 crowd16      so many clients on as many different adapters over HTTP, 100 tokens in and 64 out, against
                            llama-server (temperature 0, no end token, streamed, no prompt cache)
        crowd8-long crowd16-long      the same, 32 in, 128 out          crowd8-none crowd16-none   the same, no adapters
        start               from start to ready, and resident memory, with 32 adapters
        limits              what the machine reads and multiplies at best (tests/bench/limits.c)
A part may say its rounds (crowd16=1). Our server runs with its defaults, but with guessing off where there is guessing. A piece is one part on one model in one round: both sides, the first of them
changing by round. Pieces run in processes of their own, under $BENCH_WRAP if that is set; results go to a file that the next
run goes on with, so a run may be cut short. Adapters are those in the folder loras-SHAPE beside the model whose
name begins with SHAPE, or made (rank 16, all seven linears). Every server is asked once before it is measured."""
import glob, json, os, subprocess, sys

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__))]
import made_loras, pieces
from crowd import BINARY, Ours, Peer, crowd, peer_env
from pieces import ROOT

STEP = os.path.join(ROOT, "build", "release", "tests", "bench", "bench_step")
LIMITS = os.path.join(ROOT, "build", "release", "tests", "bench", "limits")
CROWDS = {f"crowd{n}{suffix}": (n, n_in, n_out, voices) for n in (8, 16) for suffix, n_in, n_out, voices in
          (("", 100, 64, True), ("-long", 32, 128, True), ("-none", 100, 64, False))}
PARTS = ["limits", "single", "batch", "start", *CROWDS]


def lines_of(command, env=None):
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.returncode}\n{done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def adapters_of(model, n):
    """From the folder loras-SHAPE beside the model whose name begins with SHAPE, or made."""
    folders = glob.glob(os.path.join(os.path.dirname(os.path.abspath(model)), "loras-*"))
    mine = [f for f in folders if os.path.basename(model).startswith(os.path.basename(f)[len("loras-"):])]
    found = sorted(glob.glob(os.path.join(max(mine, key=len), "*.gguf")))[:n] if mine else []
    if len(found) == n:
        return found
    name = os.path.basename(model).removesuffix(".gguf")
    return made_loras.make(model, os.path.join(ROOT, "build", "bench", "loras", name), n)


# ---- the parts: each gives a function for either side ----

def single(args, model):
    def ours():
        got = lines_of([STEP, model, "--threads", str(args.threads), "prefill:512", "decode:1:0:128"])
        return {"prefill": got[0]["rate"], "decode": got[1]["rate"]}

    def peer():
        got = lines_of([os.path.join(args.llama_bin, "llama-bench"), "-m", model, "-t", str(args.threads), "-p", "16,512", "-n", "128", "-r",
                        "1", "--no-warmup", "-o", "jsonl"], peer_env(args.llama_bin))
        return {"prefill": got[1]["avg_ts"], "decode": got[2]["avg_ts"]}
    return ours, peer


def batch(args, model):
    adapter = adapters_of(model, 1)[0]

    def ours():
        got = lines_of([STEP, model, "--threads", str(args.threads), "decode:8:0:24", "decode:8:1:24", "decode:16:0:24", "decode:16:1:24"])
        return dict(zip(("n8", "n8_one", "n16", "n16_one"), (g["rate"] for g in got)))

    def peer():
        values = {}
        for suffix, more in (("", []), ("_one", ["--lora", adapter])):
            got = lines_of([os.path.join(args.llama_bin, "llama-batched-bench"), "-m", model, "-t", str(args.threads), "-c", "4096", "-npp", "8",
                            "-ntg", "24", "-npl", "8,16", "--output-format", "jsonl", *more], peer_env(args.llama_bin))
            values.update({f"n{g['pl']}{suffix}": g["speed_tg"] for g in got})
        return values
    return ours, peer


def plain():
    """Our server's options for being measured: no guessing ahead (llama-server has no draft here; random weights soon repeat
    themselves, and repetition is guessed too well), and no packed file written meanwhile."""
    helps = subprocess.run([BINARY, "serve", "--help"], capture_output=True, text=True).stdout
    return [word for name in ("--speculate", "--pack-cache") if name in helps for word in (name, "off")]


def servers(args, model, adapters, sequences):
    return (lambda: Ours(model, adapters, args.threads, sequences, more=plain()),
            lambda: Peer(args.llama_bin, model, adapters, args.threads, sequences))


def crowds(args, model, part, seed):
    n, n_in, n_out, own = CROWDS[part]
    adapters = adapters_of(model, n) if own else []
    below = made_loras.Base(model).vocabulary()

    def on(make, with_none):
        with make() as server:
            crowd(server, [None, 0] if own else [None], 8, 2, 999 + seed, below)
            values = {}
            if with_none and own and part in ("crowd8", "crowd16"):
                values["none"] = crowd(server, [None] * n, n_in, n_out, 500 + seed, below)
            values.update(crowd(server, list(range(n)) if own else [None] * n, n_in, n_out, seed, below))
            values["memory"] = server.memory()
            return values
    ours, peer = servers(args, model, adapters, n)
    return lambda: on(ours, True), lambda: on(peer, False)


def start(args, model):
    adapters = adapters_of(model, 32)

    def on(make):
        with make() as server:
            values = {"ready_s": server.ready_s, "at_ready": server.memory()}
            crowd(server, [None, 0, 1], 32, 8, 1, made_loras.Base(model).vocabulary())
            return {**values, "memory": server.memory(), "file_kib": os.path.getsize(model) // 1024,
                    "adapters_kib": sum(os.path.getsize(a) for a in adapters) // 1024}
    ours, peer = servers(args, model, adapters, 16)
    return lambda: on(ours), lambda: on(peer)


def measure(args, part, model, turn):
    if part == "limits":
        return {"limits": lines_of([LIMITS, "--threads", str(args.threads)])[0]}
    if part in CROWDS:
        ours, peer = crowds(args, model, part, turn)
    else:
        ours, peer = {"single": single, "batch": batch, "start": start}[part](args, model)
    values, order = {}, [("ours", ours), ("peer", peer)]
    for side, run in order if turn % 2 == 0 else order[::-1]:
        values[side] = run()
    return values


def make_models(args):
    if not args.shape:
        return []
    generator = os.path.join(ROOT, "..", "shared", "bench")
    folder = os.path.join(ROOT, "build", "bench", "models")
    path = os.path.join(folder, f"{args.shape}-{args.type}.gguf")
    if not os.path.isdir(generator):
        raise SystemExit(f"{generator} isn't there: give a model by --models")
    os.makedirs(folder, exist_ok=True)
    if not os.path.exists(path):
        subprocess.run([sys.executable, os.path.join(generator, "make_model.py"), "--shape", args.shape, "--type", args.type, "--out", path],
                       check=True)
    return [path]


def plan(args, models):
    """Round by round, so that a run that is cut short has every part once."""
    wanted = [(p.split("=")[0], int(p.split("=")[1]) if "=" in p else args.rounds) for p in args.parts.replace(",", " ").split()]
    for part, _ in wanted:
        if part not in PARTS:
            raise SystemExit(f"no part {part}; there are {', '.join(PARTS)}")
    out = []
    for turn in range(max(n for _, n in wanted)):
        out += [(part, model if part != "limits" else "machine", turn) for part, n in wanted if turn < n
                for model in (models if part != "limits" else models[:1])]
    return out


def main():
    p = pieces.arguments(__doc__, "limits single batch crowd8 crowd16 start", 3, "peer.jsonl")
    p.add_argument("--llama-bin", default="")
    p.add_argument("--shape")
    p.add_argument("--type", default="q8_0")
    args = p.parse_args()
    args.llama_bin = os.path.abspath(args.llama_bin)
    if args.piece:
        part, model, turn = args.piece
        pieces.run_piece(args.results, part, model, int(turn), lambda: measure(args, part, model, int(turn)))
        return 0
    models = args.models.split() + make_models(args)
    if not models or not os.path.exists(os.path.join(args.llama_bin, "llama-server")):
        raise SystemExit("--llama-bin FOLDER (with llama-server, llama-bench, llama-batched-bench) and --models or --shape are needed")
    return pieces.run_all(os.path.abspath(__file__), plan(args, models), args.results,
                          ["--llama-bin", args.llama_bin, "--threads", str(args.threads)], args.minutes and 60 * args.minutes)


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
