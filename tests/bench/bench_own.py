#!/usr/bin/env python3
"""What Lorikeet does on a model of real shape: against the machine's limits, as it grows, and under load.

    bench_own.py --models "a.gguf b.gguf" [--parts "step share prefix"] [--rounds 1] [--threads 2]
                 [--results build/bench/own.jsonl] [--minutes N]

parts:  step           prefill, decode and its forward pass alone, with the limits (tests/bench/limits.c) before and after
        rows           decode with 1 to 64 streams, none and as many adapters, and the cost model's word on it
        ranks          8 streams on 8 adapters of rank 4 to 256
        adapters       64 streams on 1 to 64 adapters
        context        one stream at 8 to 8,000 tokens of context
        threads        one thread and two
        share          what HTTP, JSON, tokenizer, sampling and scheduling add to the forward pass, 8 streams over HTTP
        load           1, 4, 8, 16 clients over HTTP, none and own adapters: tokens/s, first token, gaps
        prefix         time to the first token with 1,000 tokens of the prompt known, against none
        many           1,000 adapters (rank 8, q/v) resident and asked for by Zipf's law, against 8
        start          from start to ready, first and again, and resident memory with 0 and 32 adapters
Pieces, wrapper and results file: as in bench_peer.py."""
import asyncio, bisect, itertools, os, random, shutil, statistics, subprocess, sys, tempfile, time, urllib.request

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__))]
import made_loras, pieces
from bench_peer import LIMITS, STEP, adapters_of, lines_of, plain
from crowd import BINARY, Ours, ask, crowd, ids
from pieces import ROOT, percentile


def step_runs(args, model, runs, more=()):
    return lines_of([STEP, model, "--threads", str(args.threads), *more, *runs])


def limits(args):
    return lines_of([LIMITS, "--threads", str(args.threads)])[0]


def step(args, model):
    before = limits(args)
    runs = step_runs(args, model, ["prefill:512", "decode:1:0:64", "decode:1:1:64", "pass:1:0:32", "pass:1:1:32", "pass:8:0:16", "pass:8:8:16",
                                   "pass:16:0:12", "pass:16:16:12"], ["--predict"])
    return {"runs": runs, "before": before, "after": limits(args)}


def rows(args, model):
    runs = [f"pass:{n}:{d}:{max(4, 32 // n)}" for n in (1, 2, 4, 8, 16, 32, 64) for d in (0, n)]
    return {"runs": step_runs(args, model, runs, ["--predict"]), "limits": limits(args)}


def ranks(args, model):
    runs = []
    for rank in (4, 16, 64, 256):
        runs += step_runs(args, model, ["pass:8:0:8", "pass:8:8:8"], ["--predict", "--rank", str(rank)])
    return {"runs": runs, "limits": limits(args)}


def adapters(args, model):
    runs = step_runs(args, model, [f"pass:64:{d}:4" for d in (0, 1, 4, 16, 64)], ["--predict"])
    return {"runs": runs, "limits": limits(args)}


def context(args, model):
    """The forward pass alone: what the pages hold doesn't matter for its time."""
    runs = [f"pass:1:0:16:{n}" for n in (8, 512, 2048, 4096, 8000)] + [f"pass:8:0:8:{n}" for n in (8, 2048)]
    return {"runs": step_runs(args, model, runs, ["--predict"]), "limits": limits(args)}


def threads(args, model):
    runs = []
    for n in sorted({1, max(1, args.threads // 2), args.threads}):
        got = lines_of([STEP, model, "--threads", str(n), "--predict", "prefill:256", "pass:1:0:32", "pass:8:0:8", "pass:8:8:8"])
        runs += [{**g, "threads": n} for g in got]
    return {"runs": runs, "limits": limits(args)}


# ---- over HTTP ----

def counter(server, name):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as reply:
        return next(float(line.split()[-1]) for line in reply.read().decode().splitlines() if line.startswith(name + " "))


def share(args, model):
    """Outside the engine: a step's time over HTTP less what the engine says it took, both as differences between long and short
    answers, so that prompts cancel out. Inside: a step of the engine less its forward pass, in turns in one process. The client is
    on the same cores, and counted."""
    below, outside, gaps = made_loras.Base(model).vocabulary(), [], []

    def answers(server, n_out, seed):
        before = counter(server, "lorikeet_steps_total"), counter(server, "lorikeet_step_seconds_total")
        seconds = crowd(server, [None] * 8, 8, n_out, seed, below)["seconds"]
        return (counter(server, "lorikeet_steps_total") - before[0], counter(server, "lorikeet_step_seconds_total") - before[1], seconds)

    with Ours(model, threads=args.threads, sequences=8, more=plain()) as server:
        crowd(server, [None], 8, 2, 1, below)
        for turn in range(3):
            short, long = answers(server, 4, 10 + turn), answers(server, 52, 20 + turn)
            steps, inside, wall = (b - a for a, b in zip(short, long))
            gaps.append(1000 * wall / steps)
            outside.append(1000 * (wall - inside) / steps)
    runs = step_runs(args, model, ["pass:8:0:24", "decode:8:0:24"], ["--rounds", "3"])
    inside = [decode["step_ms"] - alone["step_ms"] for alone, decode in zip(runs[0::2], runs[1::2])]
    return {"step_ms": statistics.median(gaps), "outside_ms": statistics.median(outside), "inside_ms": statistics.median(inside),
            "pass_ms": statistics.median(r["step_ms"] for r in runs[0::2]), "all_outside_ms": outside, "all_inside_ms": inside}


def load(args, model):
    below, out = made_loras.Base(model).vocabulary(), []
    with Ours(model, adapters_of(model, 16), args.threads, 16, more=plain()) as server:
        crowd(server, [None, 0], 8, 2, 1, below)
        for n in (1, 4, 8, 16):
            for own in (False, True):
                got = crowd(server, list(range(n)) if own else [None] * n, 100, 32, 10 * n + own, below)
                out.append({"clients": n, "own": own, **got})
    return {"load": out}


async def first_token(server, prompt):
    begin, stamps, _ = await ask(server, None, prompt, 2)
    return 1000 * (stamps[0][0] - begin)


def prefix(args, model):
    below = made_loras.Base(model).vocabulary()
    values = {"cold_ms": [], "warm_ms": []}
    with Ours(model, threads=args.threads, sequences=4, context=2048, more=plain()) as server:
        crowd(server, [None], 8, 2, 1, below)
        for turn in range(2):
            known = ids(100 + turn, 1000, below)
            for i in range(4):
                got = asyncio.run(first_token(server, known + ids(1000 * turn + i, 16, below)))
                values["warm_ms" if i else "cold_ms"].append(got)
    return values


class Zipf:
    def __init__(self, server, n, exponent=1.0):
        self.server, self.sums = server, list(itertools.accumulate(1 / (i + 1) ** exponent for i in range(n)))

    def voice(self, rng):
        return bisect.bisect(self.sums, rng.random() * self.sums[-1])

    async def client(self, seed, n_requests, below):
        rng = random.Random(seed)
        for _ in range(n_requests):
            self.n += (await ask(self.server, self.voice(rng), ids(rng.random(), 16, below), 32))[2]

    async def run(self, seed, n_clients, n_requests, below):
        self.n, begin = 0, time.perf_counter()
        await asyncio.gather(*(self.client(seed * 100 + i, n_requests, below) for i in range(n_clients)))
        return self.n / (time.perf_counter() - begin)


class OursFolder(Ours):
    """Adapters by their files' names, from a folder."""

    def request(self, voice, prompt, n_out):
        path, body = super().request(voice, prompt, n_out)
        return path, body if voice is None else {**body, "model": f"lora-{voice:04d}"}


def many(args, model):
    """The same server and the same number of clients; voices drawn from 1,000 and from 8, in turns."""
    n, below = 1000, made_loras.Base(model).vocabulary()
    folder = os.path.join(os.path.dirname(model), f"qv8-{os.path.basename(model)}")  # beside the model if somebody made them there
    if not os.path.isdir(folder):
        folder = os.path.join(ROOT, "build", "bench", "loras", os.path.basename(folder))
    made_loras.make(model, folder, n, 8, "attn_q,attn_v")
    more = ["--adapters", folder, "--adapters-watch", "false", "--resident-memory", str(16 << 30), *plain()]
    with OursFolder(model, (), args.threads, 16, more=more) as server:
        for begin in range(0, n, 50):  # registered names come into memory with their first request
            crowd(server, range(begin, min(n, begin + 50)), 1, 1, begin, below)
        memory = server.memory()
        rates = {"all": [], "few": []}
        for turn in range(3):
            for name, k in (("all", n), ("few", 8)) if turn % 2 == 0 else (("few", 8), ("all", n)):
                rates[name].append(asyncio.run(Zipf(server, k).run(turn, 8, 2, below)))
        return {"rates": rates, "ready_s": server.ready_s, "memory": memory, "n": n, "file_kib": os.path.getsize(model) // 1024,
                "adapters_kib": n * os.path.getsize(os.path.join(folder, "lora-0000.gguf")) // 1024}


def wait_for_file(folder):
    """Until the packed file, which is written beside the first requests, has stopped growing."""
    size, since, end = -1, time.monotonic(), time.monotonic() + 60
    while time.monotonic() < end and (size <= 0 or time.monotonic() - since < 2):
        now = sum(os.path.getsize(os.path.join(root, f)) for root, _, files in os.walk(folder) for f in files)
        if now != size:
            size, since = now, time.monotonic()
        time.sleep(0.2)


def start(args, model):
    """`first`: with no packed file there; `again`: with the one that it left, if this build leaves one. The model's own file is in
    the page cache both times."""
    helps = subprocess.run([BINARY, "serve", "--help"], capture_output=True, text=True).stdout
    values, loras = {"file_kib": os.path.getsize(model) // 1024}, adapters_of(model, 32)
    values["adapters_kib"] = sum(os.path.getsize(a) for a in loras) // 1024
    folder = tempfile.mkdtemp(prefix="lorikeet-bench-")
    more = ["--pack-cache", folder] if "--pack-cache" in helps else []
    try:
        for name, loaded in (("first", []), ("again", []), ("again_32", loras)):
            with Ours(model, loaded, args.threads, 16, more=more) as server:
                at_ready, begin = server.memory(), time.perf_counter()
                crowd(server, [None, 0] if loaded else [None], 16, 4, 1, made_loras.Base(model).vocabulary())
                values[name] = {"ready_s": server.ready_s, "at_ready": at_ready, "first_answer_s": time.perf_counter() - begin,
                                "memory": server.memory()}
                if name == "first" and more:
                    wait_for_file(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return values


PARTS = {"step": step, "rows": rows, "ranks": ranks, "adapters": adapters, "context": context, "threads": threads, "share": share,
         "load": load, "prefix": prefix, "many": many, "start": start}


def main():
    args = pieces.arguments(__doc__, " ".join(PARTS), 1, "own.jsonl").parse_args()
    if args.piece:
        part, model, turn = args.piece
        pieces.run_piece(args.results, part, model, int(turn), lambda: PARTS[part](args, model))
        return 0
    wanted = args.parts.replace(",", " ").split()
    for part in wanted:
        if part not in PARTS:
            raise SystemExit(f"no part {part}; there are {', '.join(PARTS)}")
    plan = [(part, model, turn) for turn in range(args.rounds) for part in wanted for model in args.models.split()]
    return pieces.run_all(os.path.abspath(__file__), plan, args.results, ["--threads", str(args.threads)],
                          args.minutes and 60 * args.minutes)


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
