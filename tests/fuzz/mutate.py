#!/usr/bin/env python3
"""Mutates model and adapter files and request bodies; the program must refuse or survive, never crash or hang.

Files go through `lorikeet inspect` (header, metadata, config and tensor table of bases and adapters) of the build with
AddressSanitizer: exit code 0 or 1 and one sentence are right; a signal, a sanitizer's report or 20 s without an end are
not. Bodies go to a running server: any HTTP answer below 500 is right, and the server must still answer afterwards.
A failing input is kept under build/fuzz/.
"""
import argparse, glob, json, os, random, shutil, struct, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import DATA, ROOT, SHARED, Server

BINARY = os.path.join(ROOT, "build", "asan", "lorikeet")
KEEP = os.path.join(ROOT, "build", "fuzz")
BODIES = [
    {"model": "base", "prompt": "hello", "max_tokens": 4},
    {"model": "base", "prompt": [[1, 2], [3]], "max_tokens": 2, "logprobs": 3, "n": 2, "stop": ["a", "b"], "seed": 5},
    {"model": "qv_r4", "messages": [{"role": "user", "content": [{"type": "text", "text": "é"}]}], "max_tokens": 3,
     "temperature": 0.7, "top_p": 0.9, "top_k": 5, "logit_bias": {"5": -100}, "stream": True,
     "stream_options": {"include_usage": True}},
]
VALUES = [None, True, -1, 0, 1, 2**31, 2**63, -2**63, 1e308, 1e-320, "", "\u0000", "é\ud83d", [], {}, [[[[]]]], "x" * 5000]


def mutate_bytes(data, rng):
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if not data:
            break
        # Mostly near the start, where headers, counts and offsets are.
        at = min(int(rng.expovariate(1 / min(len(data), 2000))), len(data) - 1)
        kind = rng.randrange(7)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.choice((0, 1, 0x7f, 0x80, 0xff))
        elif kind == 2:
            data[at:at + 8] = struct.pack("<Q", rng.choice((0, 1, 2**31, 2**32, 2**63 - 1, 2**64 - 1, len(data))))
        elif kind == 3:
            del data[at:at + rng.randrange(1, 64)]
        elif kind == 4:
            data[at:at] = data[at:at + rng.randrange(1, 64)]
        elif kind == 5:
            del data[at:]
        else:
            data[at:at + 4] = struct.pack("<I", rng.choice((0, 8, 9, 2**31, 2**32 - 1)))
    return bytes(data)


def mutate_json(value, rng):
    if rng.random() < 0.25:
        return rng.choice(VALUES)
    if isinstance(value, dict) and value:
        key = rng.choice(list(value))
        return {**value, key: mutate_json(value[key], rng)}
    if isinstance(value, list) and value:
        i = rng.randrange(len(value))
        return value[:i] + [mutate_json(value[i], rng)] + value[i + 1:]
    return rng.choice(VALUES)


def keep(name, data):
    os.makedirs(KEEP, exist_ok=True)
    path = os.path.join(KEEP, name)
    with open(path, "wb") as f:
        f.write(data)
    return path


def fuzz_files(rng, seconds):
    seeds = [os.path.join(DATA, "models", f, "f32") for f in ("llama", "gemma3")]
    seeds += [os.path.join(DATA, "adapters", "llama", a) for a in ("qv_r4", "patterns")]
    seeds += glob.glob(os.path.join(SHARED, "goldens", "gguf", "*.gguf"))
    n = bad = 0
    end = time.time() + seconds
    with tempfile.TemporaryDirectory() as folder:
        while time.time() < end:
            seed = rng.choice(seeds)
            target = os.path.join(folder, "x.gguf" if seed.endswith(".gguf") else "x")
            if os.path.isdir(seed):
                shutil.copytree(seed, target, dirs_exist_ok=True)
                victim = os.path.join(target, rng.choice(sorted(os.listdir(target))))
            else:
                shutil.copy(seed, target)
                victim = target
            with open(victim, "rb") as f:
                data = mutate_bytes(f.read(), rng)
            with open(victim, "wb") as f:
                f.write(data)
            try:
                r = subprocess.run([BINARY, "inspect", target], capture_output=True, timeout=20)
                why = None if r.returncode in (0, 1) and b"Sanitizer" not in r.stderr and b"runtime error" not in r.stderr \
                    else f"exit code {r.returncode}: {r.stderr[-600:].decode(errors='replace')}"
            except subprocess.TimeoutExpired:
                why = "hangs"
            n += 1
            if why:
                bad += 1
                print(f"FAIL {seed}: {os.path.basename(victim)}: {why}\n  kept: {keep(f'file-{n}-' + os.path.basename(victim), data)}")
            shutil.rmtree(target) if os.path.isdir(target) else os.remove(target)
    print(f"files: {n} mutants, {bad} bad")
    return n - bad, bad


def fuzz_bodies(rng, seconds):
    n = bad = 0
    os.environ["LORIKEET"] = BINARY
    import harness
    harness.BINARY = BINARY
    end = time.time() + seconds
    with Server(os.path.join(DATA, "models", "llama", "f32"), {"qv_r4": os.path.join(DATA, "adapters", "llama", "qv_r4")}) as s:
        while time.time() < end:
            body = rng.choice(BODIES)
            for _ in range(rng.choice((1, 1, 2, 3))):
                body = mutate_json(body, rng)
            path = rng.choice(("/v1/completions", "/v1/chat/completions", "/tokenize", "/apply-template"))
            n += 1
            try:
                status, answer = s.post(path, body, timeout=30)
                why = None if status < 500 or status == 503 else f"{status} {answer}"
            except (OSError, ValueError) as error:
                why = repr(error)
            if why or s.process.poll() is not None:
                bad += 1
                print(f"FAIL {path}: {why}\n  kept: {keep(f'body-{n}.json', json.dumps(body).encode())}")
                if s.process.poll() is not None:
                    break
        if s.post("/v1/completions", BODIES[0])[0] != 200:
            bad += 1
            print("FAIL the server no longer answers")
    print(f"bodies: {n} mutants, {bad} bad")
    return n - bad, bad


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seconds", type=int, default=60)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    rng = random.Random(a.seed)
    good, bad = (sum(x) for x in zip(fuzz_files(rng, a.seconds), fuzz_bodies(rng, a.seconds)))
    print(f"{good} passed, {bad} failed, 0 skipped")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
