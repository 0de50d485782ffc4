#!/usr/bin/env python3
"""Goldens over HTTP: each case alone, then all together in one crowd of mixed voices, streamed.

On every family and adapter of tests/golden/data, and of the folders that GOLDENS names (colon separated).
Alone: greedy ids equal the golden's up to greedy_safe_len, the first token's top logprobs within 2e-3. Crowd: the same
bytes as alone. The whole set runs again with other threads and other prompt chunks:
ids and logprobs must be equal to the last digit wherever only threads and chunks differ (not with --quick).
"""
import concurrent.futures, json, os, sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import DATA, Server

BASE_LINE = ["--threads", "2"]
VARIANTS = {"one thread": ["--threads", "1"], "chunks of 7": ["--threads", "2", "--chunk-tokens", "7"],
            "chunks of 512": ["--threads", "2", "--chunk-tokens", "512", "--step-tokens", "512"]}


def entries(folder, family):
    path = os.path.join(folder, "goldens", family + ".json")
    for e in json.load(open(path))["entries"]:
        name = os.path.basename(e["adapter"]) if e["adapter"] else None
        if e["model"] == f"models/{family}/f32" and e.get("cases"):
            yield name, e


def ask(server, voice, case, stream=False):
    """(ids, top logprobs of the first token, all logprobs): streamed or whole."""
    body = {"model": voice, "prompt": case["prompt"], "max_tokens": len(case["greedy"]), "temperature": 0,
            "ignore_eos": True, "return_token_ids": True, "logprobs": 5, "stream": stream}
    status, answer = server.post("/v1/completions", body)
    if status != 200:
        raise RuntimeError(f"{status} {answer}")
    if not stream:
        choice = answer["choices"][0]
        return choice["token_ids"], choice["logprobs"]["top_logprobs"][0], choice["logprobs"]["token_logprobs"], choice["text"]
    events = [json.loads(line[6:]) for line in answer.split("\n") if line.startswith("data: {")]
    choices = [e["choices"][0] for e in events if e["choices"]]
    ids = [i for c in choices for i in c.get("token_ids") or []]
    logprobs = [c["logprobs"] for c in choices if c.get("logprobs")]
    return (ids, logprobs[0]["top_logprobs"][0], [x for l in logprobs for x in l["token_logprobs"]],
            "".join(c["text"] for c in choices))


def wrong(case, got):
    n = min(case.get("greedy_safe_len", 32), len(case["greedy"]))
    if got[0][:n] != case["greedy"][:n]:
        return f"ids differ: {got[0][:n]} instead of {case['greedy'][:n]}"
    mine, best = sorted(got[1].values(), reverse=True)[:5], case["last"]["top_logits"]
    worst = max((abs((a - mine[0]) - (b - best[0])) for a, b in zip(mine, best)), default=0)
    return f"top logprobs differ by {worst:.3g}" if worst > 2e-3 else None


class Tally:
    passed = failed = 0

    def note(self, ok, text):
        self.passed, self.failed = self.passed + ok, self.failed + (not ok)
        if not ok:
            print("FAIL", text)


def run_family(folder, family, tally):
    found = list(entries(folder, family))
    adapters = {name: os.path.join(folder, e["adapter"]) for name, e in found if name}
    jobs = [(name or "base", key, case) for name, e in found for key, case in e["cases"].items()]
    run_jobs(family, os.path.join(folder, "models", family, "f32"), adapters, jobs, tally)


def run_weighted(folder, file, tally):
    """Sums of adapters, asked for in words, against what PEFT puts into one adapter or has active at once."""
    golden, adapters, jobs = json.load(open(os.path.join(folder, "goldens", file + ".json"))), {}, []
    for e in golden["entries"]:
        if e["type"] not in ("cat", "active_together"):  # the others are approximations
            continue
        adapters.update((os.path.basename(a), os.path.join(folder, a)) for a in e["adapters"])
        voice = "+".join(f"{w}*{os.path.basename(a)}" for a, w in zip(e["adapters"], e["weights"]))
        jobs += [(voice, key, case) for key, case in e["cases"].items()]
    run_jobs(file, os.path.join(folder, golden["model"]), adapters, jobs, tally)


def run_jobs(family, model, adapters, jobs, tally):
    alone = {}
    with Server(model, adapters, BASE_LINE) as server:
        for voice, key, case in jobs:
            alone[voice, key] = ask(server, voice, case)
            why = wrong(case, alone[voice, key])
            tally.note(not why, f"{family} {voice} {key}: {why}")
        crowd(server, family, "crowd", jobs, alone, tally)
    for label, extra in [] if "--quick" in sys.argv else VARIANTS.items():
        with Server(model, adapters, extra) as server:
            crowd(server, family, label, jobs, alone, tally)


def crowd(server, family, label, jobs, alone, tally):
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        results = pool.map(lambda j: ask(server, j[0], j[2], stream=True), jobs)
        for (voice, key, _), got in zip(jobs, results):
            tally.note(got == alone[voice, key], f"{family} {voice} {key}: {label} differs from alone")


def main():
    tally = Tally()
    for folder in [DATA] + [f for f in os.environ.get("GOLDENS", "").split(":") if f]:
        for family in sorted(file[:-5] for file in os.listdir(os.path.join(folder, "goldens"))):
            weighted = family.startswith("weighted")
            if not weighted and not os.path.isdir(os.path.join(folder, "models", family, "f32")):
                continue
            try:
                (run_weighted if weighted else run_family)(folder, family, tally)
            except (RuntimeError, OSError, KeyError) as error:
                tally.note(False, f"{family}: {error!r}")
    print(f"{tally.passed} passed, {tally.failed} failed, 0 skipped")
    return 1 if tally.failed or not tally.passed else 0


if __name__ == "__main__":
    sys.exit(main())
