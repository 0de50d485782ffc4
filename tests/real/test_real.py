#!/usr/bin/env python3
"""gemma-3-270m as Q4_K_M with the trained adapters, against goldens made from its dequantised weights in f32.

With f32 activations the greedy ids must be the golden's. With int8 activations they may part where the golden's own
margin between the best two is below 0.1, and nowhere else. The same again with the adapters as GGUF LoRAs, and all
prompts at once in one mixed crowd, which must give what each gave alone.
"""
import concurrent.futures, json, os, sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import ROOT, SHARED, Server, ask_ids

MODEL = os.path.join(ROOT, "build", "real", "gemma-3-270m-q4_k_m.gguf")
VOICES = ("pt", "de", "bikeshop", "safety")


def cases():
    for name in ("base_gguf", "adapters_gguf"):
        for entry in json.load(open(os.path.join(SHARED, "goldens", "real", name + ".json")))["entries"]:
            for case in entry["cases"]:
                yield os.path.basename(entry["adapter"]) if entry["adapter"] else "base", case


def parted(got, case, near_tie):
    """Where got leaves the golden without a near tie to excuse it, or None."""
    for i, (a, b) in enumerate(zip(got, case["greedy"])):
        if a != b:
            return None if case["margins"][i] < near_tie else f"token {i}: {a} instead of {b}, margin {case['margins'][i]}"
    return None


def check(label, adapters, extra, near_tie):
    passed = failed = 0
    with Server(MODEL, adapters, extra) as server:
        jobs = list(cases())
        alone = [ask_ids(server, voice, case["prompt"], len(case["greedy"])) for voice, case in jobs]
        for (voice, case), got in zip(jobs, alone):
            why = parted(got, case, near_tie)
            passed, failed = passed + (not why), failed + bool(why)
            print(f"{'FAIL' if why else 'ok  '} {label} {voice} {case['text'][:50]!r}{': ' + why if why else ''}")
        with concurrent.futures.ThreadPoolExecutor(len(jobs)) as pool:
            crowd = list(pool.map(lambda j: ask_ids(server, j[0], j[1]["prompt"], len(j[1]["greedy"])), jobs))
        same = sum(a == b for a, b in zip(alone, crowd))
        print(f"{'ok  ' if same == len(jobs) else 'FAIL'} {label}: {same} of {len(jobs)} the same in a crowd as alone")
        passed, failed = passed + same, failed + len(jobs) - same
    return passed, failed


def main():
    if not os.path.isdir(SHARED) or not os.path.exists(MODEL):
        print("skip: needs the reference data beside the repository and `make real-model`\n0 passed, 0 failed, 1 skipped")
        return 0
    peft = {v: os.path.join(SHARED, "adapters", v) for v in VOICES}
    gguf = {v: os.path.join(SHARED, "adapters", "gguf", f"gemma3-lora-{v}.gguf") for v in VOICES}
    runs = [check("f32 activations", peft, ["--activations", "f32", "--kv-type", "f32"], 2e-3),
            check("int8 activations", peft, [], 0.1), check("GGUF adapters", gguf, [], 0.1)]
    passed, failed = (sum(x) for x in zip(*runs))
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
