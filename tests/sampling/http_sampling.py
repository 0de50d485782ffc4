#!/usr/bin/env python3
"""Sampling and log-probabilities as clients see them, on the small golden models.

Seeds: the same tokens after a restart, in a crowd, with other threads, streamed, and as one choice of several. One chain
by chi-square over HTTP. Log-probabilities of every golden case: sums, order, the prompt's, chat's, raw under any parameters.
GOLDENS=shared takes the larger set in ../shared. A model or an adapter that the server refuses is a failure.
"""
import concurrent.futures, glob, json, os, sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]
import model
from chi_square import SIGNIFICANCE, p_value
from harness import DATA, SHARED, Server

ROOT = os.path.realpath(os.path.join(SHARED, "goldens") if os.environ.get("GOLDENS") == "shared" else DATA)
TOLERANCE = 2e-3


class Tally:
    passed = failed = 0

    def note(self, ok, text):
        self.passed, self.failed = self.passed + bool(ok), self.failed + (not ok)
        if not ok:
            print("FAIL " + text)


def model_path(family):
    return os.path.join(DATA, "models", family, "f32")


def complete(server, status=200, **body):
    got, answer = server.post("/v1/completions", {"ignore_eos": True, "return_token_ids": True, **body})
    if got != status:
        raise RuntimeError(f"status {got}, expected {status}: {answer}")
    return answer


def ids(server, **body):
    return [c["token_ids"] for c in complete(server, **body)["choices"]]


def streamed_ids(server, **body):
    events = [json.loads(line[6:]) for line in complete(server, stream=True, **body).split("\n") if line.startswith("data: {")]
    return [i for e in events for c in e["choices"] for i in c.get("token_ids") or []]


# ---- seeds

REQUESTS = [dict(prompt=[1, 60 + i, 70, 301], max_tokens=24, temperature=1.1, seed=40 + i,
                 **[{}, {"top_p": 0.9}, {"top_k": 30, "samplers": "ektm"}, {"typical_p": 0.8}, {"repetition_penalty": 1.2, "min_p": 0.02},
                    {"mirostat": 2, "mirostat_tau": 3}, {"xtc_probability": 0.5, "xtc_threshold": 0.02, "dry_multiplier": 0.8, "dry_allowed_length": 1}][i])
            for i in range(7)]


def seeds(t):
    with Server(model_path("llama"), extra=["--threads", "1"]) as server:
        alone = [ids(server, **r)[0] for r in REQUESTS]
        t.note(all(len(set(a)) > 6 for a in alone) and len(set(map(tuple, alone))) == 7, "the generations are varied")
        t.note(ids(server, **REQUESTS[0])[0] == alone[0], "the same seed gives the same tokens again")
        t.note(ids(server, **{**REQUESTS[0], "seed": 41})[0] != alone[0], "another seed gives others")
        t.note(ids(server, **{**REQUESTS[0], "seed": -1})[0] != ids(server, **{**REQUESTS[0], "seed": -1})[0], "seed -1 is random")
        t.note(streamed_ids(server, **REQUESTS[1]) == alone[1], "a stream has the same tokens")
        three = ids(server, **{**REQUESTS[0], "n": 3, "seed": 7})
        t.note(three == [ids(server, **{**REQUESTS[0], "seed": 7 + i})[0] for i in range(3)], "choice i has seed + i")
    with Server(model_path("llama"), extra=["--threads", "2", "--chunk-tokens", "2"]) as server:
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            crowd = list(pool.map(lambda i: ids(server, **REQUESTS[i % 7])[0], range(21)))
        t.note(crowd == alone * 3, "after a restart, in a crowd, with other threads and chunks: the same tokens")


# ---- one chain over HTTP

def chain(t, server):
    prompt, parameters = [1, 60, 70, 301], {"samplers": "kpt", "top_k": 20, "top_p": 0.9, "temperature": 1.3}
    top = complete(server, prompt=prompt, max_tokens=1, logprobs=20, return_tokens_as_token_ids=True)["choices"][0]["logprobs"]["top_logprobs"][0]
    best = sorted(((int(k[9:]), v) for k, v in top.items()), key=lambda x: (-x[1], x[0]))[:20]
    logits = [None] * 384
    for token, logprob in best:
        logits[token] = logprob
    counts = np.zeros(384)
    for i in range(60):
        for choice in ids(server, prompt=prompt, max_tokens=1, n=16, seed=16 * i, **parameters):
            counts[choice[0]] += 1
    p = p_value(counts, model.probabilities({"logits": logits, "request": parameters}))
    t.note(p >= SIGNIFICANCE, f"960 tokens over HTTP: p {p:.3g}")


def refusals(t, server):
    all_tokens = {str(i): -1e6 for i in range(384)}
    banned = complete(server, status=400, prompt="The", max_tokens=3, logit_bias=[[i, False] for i in range(384)])
    plain = ids(server, prompt="The", max_tokens=8, temperature=0)[0]
    t.note(set(ids(server, prompt="The", max_tokens=20, temperature=2, allowed_token_ids=[7, 70, 9])[0]) == {7, 9, 70}, "only what is allowed comes")
    text = {i: server.post("/detokenize", {"tokens": [i]})[1]["content"] for i in plain}
    whole = [i for i in plain if server.post("/tokenize", {"content": text[i]})[1]["tokens"] == [i]]
    other = ids(server, prompt="The", max_tokens=8, temperature=0, bad_words=[text[whole[0]]])[0]
    t.note(whole[0] in plain and whole[0] not in other and len(other) == 8, f"{text[whole[0]]!r} is banned from {other}")
    t.note(plain == ids(server, prompt="The", max_tokens=8, temperature=0, mirostat=2)[0], "greedy stays greedy")
    t.note("ban every token" in banned["error"]["message"], f"everything banned: {banned}")
    eos = complete(server, status=400, prompt="The", max_tokens=3, min_tokens=2, ignore_eos=False,
                   logit_bias=[[i, False] for i in range(384) if i != 5], stop_token_ids=[5], temperature=0)
    t.note("ban every token" in eos["error"]["message"], f"min_tokens bans the only one left: {eos}")
    t.note(len(ids(server, prompt="The", max_tokens=3, logit_bias=all_tokens)[0]) == 3, "a bias that all have changes nothing")
    for samplers in (["top_k", "best"], "kz", ["top_k", "top_k"], {"top_k": 1}):
        text = complete(server, status=400, prompt="The", samplers=samplers)["error"]["message"]
        t.note("penalties (e), temperature (t), top_k (k), typ_p (y)" in text, f"samplers {samplers}: {text}")


# ---- log-probabilities

def top_of(entry):
    """[(id, logprob), …] of a completions entry, as sent."""
    return [(int(k[9:]), v) for k, v in entry.items()]


def falls(pairs):
    """Never rising. (Logits that differ in their last bit may give equal log-probabilities, so ids aren't looked at.)"""
    return all(a[1] >= b[1] for a, b in zip(pairs, pairs[1:]))


def golden_faults(case, n_vocab, logprobs):
    """What is wrong with a case's echo and first token."""
    n, last = len(case["prompt"]), case["last"]
    values, tops = logprobs["token_logprobs"], [None if e is None else top_of(e) for e in logprobs["top_logprobs"]]
    if values[0] is not None or tops[0] is not None or len(values) != n + 1 or len(case.get("prompt_logprobs", [])) != n - 1:
        return "the first prompt token has a log-probability, or tokens are missing"
    worst = max((abs(a - b) for a, b in zip(values[1:n], case.get("prompt_logprobs", []))), default=0)
    if worst > TOLERANCE:
        return f"log-probabilities of the prompt differ by {worst:.3g}"
    for i in range(1, n + 1):
        token = int(logprobs["tokens"][i][9:])
        if not falls(tops[i][:20]) or dict(tops[i]).get(token) != values[i] or sum(np.exp(v) for _, v in tops[i]) > 1 + 1e-5:
            return f"position {i}: {tops[i]}, token {token} at {values[i]}"
    logits = dict(zip(last["top_ids"], last["top_logits"]))
    if any(k not in logits for k, _ in tops[n]):
        return f"the best are {tops[n]}, expected {last['top_ids'][:20]}"
    log_sums = [logits[k] - v for k, v in tops[n]]
    golden = [logits[k] for k, _ in tops[n]]
    if max(log_sums) - min(log_sums) > TOLERANCE or any(b > a + TOLERANCE for a, b in zip(golden, golden[1:])):
        return f"logits of the best, {golden}, don't fit {tops[n]}"
    least, listed = min(last["top_logits"]), np.exp(np.array(last["top_logits"])).sum()
    if not np.log(listed) - TOLERANCE <= log_sums[0] <= np.log(listed + (n_vocab - len(logits)) * np.exp(least)) + TOLERANCE:
        return f"the softmax' sum is e^{log_sums[0]:.4f}, the listed logits make e^{np.log(listed):.4f}"
    return None


def entries():
    """{model: [(adapter or None, its cases)]} of all float goldens."""
    models = {}
    for path in sorted(glob.glob(os.path.join(ROOT, "goldens", "*.json"))):
        listed = json.load(open(path))
        for e in listed.get("entries", []) if isinstance(listed, dict) else []:
            if e.get("cases") and e.get("model", "").endswith("/f32") and isinstance(e.get("adapter"), (str, type(None))):
                models.setdefault(e["model"], []).append((e.get("adapter"), e["cases"]))
    return models


def load(t, server, adapter):
    """The voice's name, or None."""
    if adapter is None:
        return "base"
    name = os.path.basename(adapter).replace(".", "-")
    status, text = server.admin_request("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": os.path.join(ROOT, adapter),
                                                                          "load_inplace": True})
    if status != 200:
        t.note(False, f"{adapter} is refused: {text[:200]}")
    return name if status == 200 else None


def goldens(t, path, voices):
    n_vocab = json.load(open(os.path.join(ROOT, path, "config.json")))["vocab_size"]
    with Server(os.path.join(ROOT, path), extra=["--threads", "2", "--adapter-root", ROOT]) as server:
        for adapter, cases in voices:
            voice = load(t, server, adapter)
            for name, case in cases.items() if voice else ():
                answer = complete(server, model=voice, prompt=case["prompt"], max_tokens=1, temperature=0, echo=True, logprobs=20,
                                  return_tokens_as_token_ids=True)
                fault = golden_faults(case, n_vocab, answer["choices"][0]["logprobs"])
                t.note(not fault, f"{path} {adapter or 'base'} {name}: {fault}")


def raw_and_chat(t, server):
    ask = dict(prompt=[1, 60, 70, 301], max_tokens=1, logprobs=5, return_tokens_as_token_ids=True)
    plain = complete(server, temperature=0, **ask)["choices"][0]["logprobs"]
    for more in (dict(temperature=5, seed=3), dict(temperature=0, logit_bias={"9": 50}), dict(repetition_penalty=5, top_k=1),
                 dict(min_tokens=1, stop_token_ids=[int(plain["tokens"][0][9:])], temperature=0)):
        got = complete(server, **ask, **more)["choices"][0]["logprobs"]
        best, chosen = top_of(got["top_logprobs"][0]), int(got["tokens"][0][9:])
        t.note(best[:5] == top_of(plain["top_logprobs"][0])[:5], f"{more} changes the raw log-probabilities")
        t.note(dict(best)[chosen] == got["token_logprobs"][0] and len(best) == 5 + (chosen not in dict(best[:5])),
               f"{more}: the chosen token {chosen} isn't listed: {got}")
    status, chat = server.post("/v1/chat/completions", {
        "messages": [{"role": "user", "content": "The bird sings."}], "max_tokens": 3, "logprobs": True, "top_logprobs": 20,
        "temperature": 0, "ignore_eos": True, "return_token_ids": True, "return_tokens_as_token_ids": True})
    choice = chat["choices"][0]
    same = complete(server, prompt=choice["prompt_token_ids"], max_tokens=3, logprobs=20, temperature=0,
                    return_tokens_as_token_ids=True)["choices"][0]
    content = choice["logprobs"]["content"]
    t.note([[(x["token"], x["logprob"]) for x in e["top_logprobs"]] for e in content] ==
           [list(e.items()) for e in same["logprobs"]["top_logprobs"]], "chat lists the same alternatives as completions")
    t.note([e["logprob"] for e in content] == same["logprobs"]["token_logprobs"], "and the same chosen tokens")
    by_name = complete(server, **{**ask, "logprobs": None, "n_probs": 5}, temperature=0)["choices"][0]["logprobs"]
    t.note(by_name == plain, "n_probs asks for the same")


def main():
    t = Tally()
    seeds(t)
    with Server(model_path("llama")) as server:
        raw_and_chat(t, server)
        chain(t, server)
        refusals(t, server)
    for path, voices in entries().items():
        try:
            goldens(t, path, voices)
        except RuntimeError as error:
            refusal = [line for line in str(error).split("\n") if "can't start:" in line]
            if refusal:
                t.note(False, f"{path} is refused: {refusal[0][-160:]}")
            else:
                t.note(False, f"{path}: {error}")
    print(f"{t.passed} passed, {t.failed} failed, 0 skipped")
    return int(t.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
