"""The prefix cache over HTTP: what is counted as cached, who shares with whom, and that no byte of an answer changes."""
import http.client
import json
import os
import shutil

import pytest

from conftest import ADAPTERS, LLAMA, VOICES
from harness import Server

ALORA = [17, 33, 29]  # the invocation tokens of alora_r4
PAGE = 32


def prompt(n, seed=0):
    return [1] + [34 + (i * i * 7 + i * 3 + seed * 11) % 60 for i in range(n - 1)]


def ask(server, ids, path="/v1/completions", headers=None, **body):
    c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    body = {"prompt": ids, "max_tokens": 6, "temperature": 0, "ignore_eos": True, "return_token_ids": True, **body}
    c.request("POST", path, json.dumps(body), {"Content-Type": "application/json", **(headers or {})})
    r = c.getresponse()
    answer = json.loads(r.read())
    c.close()
    return r.status, answer


def cached(server, ids, **body):
    status, answer = ask(server, ids, **body)
    assert status == 200, answer
    return answer["usage"]["prompt_tokens_details"]["cached_tokens"]


@pytest.fixture(scope="module")
def many():
    with Server(LLAMA, {**VOICES, "alora_r4": os.path.join(ADAPTERS, "alora_r4")},
                ["--threads", "2", "--adapter-root", ADAPTERS], name="tiny") as s:
        yield s


def test_an_answer_is_the_same_with_and_without(many):
    ids = prompt(150, 1)
    for model in ("tiny", "qv_r4"):
        fresh = ask(many, ids, model=model, logprobs=5, cache_prompt=False)[1]
        answers = [ask(many, ids, model=model, logprobs=5)[1] for _ in range(2)]
        found = [a["usage"]["prompt_tokens_details"]["cached_tokens"] for a in [fresh] + answers]
        assert found == [0, 0, 149 // PAGE * PAGE]
        assert fresh["choices"] == answers[0]["choices"] == answers[1]["choices"]


def test_the_next_turn_finds_prompt_and_answer(many):
    ids = prompt(90, 2)
    status, answer = ask(many, ids, max_tokens=50, model="qv_r4")
    assert status == 200
    turn = ids + answer["choices"][0]["token_ids"] + prompt(20, 3)
    assert cached(many, turn, model="qv_r4") == (90 + 49) // PAGE * PAGE


def test_only_the_same_voice_shares(many):
    ids = prompt(100, 4)
    full = 99 // PAGE * PAGE
    for voice in ("tiny", "qv_r4", "all_r8_bf16", "qv_r4+0.5*all_r8_bf16", "0.5*qv_r4"):
        assert cached(many, ids, model=voice) == 0, voice
    for voice in ("tiny", "qv_r4", "1*qv_r4", "0.5*all_r8_bf16+qv_r4"):
        assert cached(many, ids, model=voice) == full, voice


def test_a_turn_that_activates_an_adapter_keeps_what_the_base_has_read(many):
    """One transcript, two voices: what stands before the invocation is the base's, to the bit; any other adapter reads it anew."""
    def say(turns, **body):
        messages = [{"role": ("user", "assistant")[i % 2], **t} for i, t in enumerate(turns)]
        status, answer = ask(many, None, path="/v1/chat/completions", messages=messages, model="tiny", **body)
        assert status == 200, answer
        return answer["usage"]["prompt_tokens_details"]["cached_tokens"], answer["choices"][0]["token_ids"], answer["choices"][0]["prompt_token_ids"]

    word = many.post("/detokenize", {"tokens": ALORA})[1]["content"]
    before = [{"content": "A long ride by the river, with two of them and a dog. " * 4}, {"content": "Well."}]
    _, _, read = say(before[:1])
    n = len(read) // PAGE * PAGE
    assert n >= 2 * PAGE
    turns = {v: before + [{"content": "Check " + word + "now", "adapter": v}] for v in ("alora_r4", "qv_r4")}
    found, answer, ids = say(turns["alora_r4"])
    at = [i for i in range(len(ids)) if ids[i:i + 3] == ALORA]
    assert len(at) == 1 and at[0] >= n and found >= n  # it is called once, behind what was found
    assert say(turns["alora_r4"], cache_prompt=False)[:2] == (0, answer)
    assert say(turns["qv_r4"])[0] == 0


def test_an_activated_adapter_has_the_bases_prompt(many):
    ids = prompt(70, 5) + ALORA + prompt(40, 6)
    assert cached(many, ids, model="tiny") == 0
    assert cached(many, ids, model="alora_r4") == 64
    assert cached(many, ids, model="alora_r4") == (len(ids) - 1) // PAGE * PAGE
    other = prompt(70, 7) + ALORA + prompt(40, 6)
    assert cached(many, other, model="alora_r4") == 0
    assert cached(many, other, model="tiny") == 64
    assert cached(many, other, model="qv_r4") == 0


def test_salt_and_authorization_part_callers(many):
    ids = prompt(100, 8)
    full = 99 // PAGE * PAGE
    assert cached(many, ids) == 0
    for who in ({"cache_salt": "a"}, {"cache_salt": "b"}, {"headers": {"Authorization": "Bearer x"}},
                {"headers": {"Authorization": "Bearer y"}},
                {"cache_salt": "a", "headers": {"Authorization": "Bearer x"}}):
        assert cached(many, ids, **who) == 0, who
        assert cached(many, ids, **who) == full, who
    assert cached(many, ids) == full
    assert cached(many, ids, cache_prompt=False) == 0
    for wrong in ("", 3, ["x"]):
        status, answer = ask(many, ids, cache_salt=wrong)
        assert status == 400 and answer["error"]["param"] == "cache_salt", answer
    assert ask(many, ids, cache_prompt="no")[0] == 400


def test_wanted_prompt_logprobs_are_computed(many):
    ids = prompt(80, 9)
    answers = [ask(many, ids, echo=True, logprobs=2)[1] for _ in range(2)]
    assert answers[0]["choices"] == answers[1]["choices"]
    assert answers[1]["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


def test_streams_and_timings_say_it(many):
    ids = prompt(80, 10)
    ask(many, ids)
    c = http.client.HTTPConnection("127.0.0.1", many.port, timeout=60)
    c.request("POST", "/v1/completions", json.dumps(
        {"prompt": ids, "max_tokens": 3, "stream": True, "stream_options": {"include_usage": True},
         "timings_per_token": True}), {"Content-Type": "application/json"})
    chunks = [json.loads(l[6:]) for l in c.getresponse().read().decode().splitlines()
              if l.startswith("data: ") and l != "data: [DONE]"]
    c.close()
    usage = [x["usage"] for x in chunks if x.get("usage")][-1]
    assert usage["prompt_tokens_details"]["cached_tokens"] == 64 and usage["prompt_tokens"] == 80
    timings = [x["timings"] for x in chunks if "timings" in x][-1]
    assert timings["cache_n"] == 64 and timings["prompt_n"] == 16


def metric(server, name):
    return float([l.split()[1] for l in server.get("/metrics")[1].splitlines() if l.startswith(name + " ")][0])


def test_metrics(many):
    before = metric(many, "lorikeet_prefix_hits_total"), metric(many, "lorikeet_prefix_tokens_total")
    ids = prompt(100, 11)
    ask(many, ids)
    ask(many, ids)
    assert metric(many, "lorikeet_prefix_hits_total") == before[0] + 1
    assert metric(many, "lorikeet_prefix_tokens_total") == before[1] + 96
    assert metric(many, "lorikeet_prefix_pages") >= 3
    assert metric(many, "vllm:prefix_cache_hits_total") == before[1] + 96
    assert metric(many, "vllm:kv_cache_usage_perc") == 0  # what nobody uses is there for all


def test_a_replaced_adapter_finds_nothing(tmp_path):
    folder = tmp_path / "pt"
    shutil.copytree(VOICES["qv_r4"], folder)
    with Server(LLAMA, {"pt": str(folder)}, ["--threads", "2", "--adapter-root", str(tmp_path)], name="tiny") as s:
        ids = prompt(100, 12)
        assert [cached(s, ids, model="pt") for _ in range(2)] == [0, 96]
        old = ask(s, ids, model="pt")[1]["choices"]
        shutil.rmtree(folder)
        shutil.copytree(VOICES["rslora_r8"], folder)
        status, answer, _ = s.admin("POST", "/v1/load_lora_adapter",
                                   {"lora_name": "pt", "lora_path": str(folder), "load_inplace": True})
        assert status == 200, answer
        assert cached(s, ids, model="pt") == 0
        new = ask(s, ids, model="pt")[1]
        assert new["usage"]["prompt_tokens_details"]["cached_tokens"] == 96 and new["choices"] != old


@pytest.mark.parametrize("mode", ["off", "shared"])
def test_the_option(mode):
    with Server(LLAMA, {}, ["--threads", "2", "--prefix-cache", mode], name="tiny") as s:
        ids = prompt(100, 13)
        full = 96 if mode == "shared" else 0
        assert cached(s, ids) == 0
        assert cached(s, ids) == full
        assert cached(s, ids, headers={"Authorization": "Bearer x"}) == full
        assert cached(s, ids, cache_salt="x") == 0
