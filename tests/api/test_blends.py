"""Sums of adapters: every way to ask for one, PEFT's answers, crowds of them, names for them, and what a server adds."""
import concurrent.futures
import http.client
import json
import os
import shutil
import struct
import threading

import pytest

from conftest import ADAPTERS, LLAMA, VOICES
from fingerprint import FIRST_TOKEN, make_fingerprint, read_safetensors, write_safetensors
from harness import DATA, Server, ask_ids

MORE = {v: os.path.join(ADAPTERS, v) for v in ("lora_bias_r3", "embed_r3", "dora_r3", "mts_norms_r2", "alora_r4")}
PROMPT = [1, 30, 31, 32, 50]


@pytest.fixture(scope="module")
def many():
    with Server(LLAMA, {**VOICES, **MORE}, ["--threads", "2", "--adapter-root", ADAPTERS], name="tiny") as s:
        yield s


def ask(server, path="/v1/completions", headers=None, **body):
    """(status, body, the reply's headers in lower case)"""
    c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    c.request("POST", path, json.dumps(body), {"Content-Type": "application/json", **(headers or {})})
    r = c.getresponse()
    text = r.read()
    c.close()
    return r.status, json.loads(text), {k.lower(): v for k, v in r.getheaders()}


def speak(server, headers=None, n=8, **body):
    """(token ids, log-probabilities), reply headers, fingerprint"""
    status, answer, head = ask(server, headers=headers, prompt=PROMPT, max_tokens=n, temperature=0, ignore_eos=True,
                               return_token_ids=True, logprobs=2, **body)
    assert status == 200, answer
    choice = answer["choices"][0]
    return (choice["token_ids"], choice["logprobs"]["token_logprobs"]), head, answer["system_fingerprint"]


def refused(server, status, says, **body):
    got, answer, _ = ask(server, **{"prompt": PROMPT, "max_tokens": 2, **body})
    assert got == status, answer
    assert says in answer["error"]["message"], answer
    return answer["error"]


def ids_of(server):
    return {a["path"]: a["id"] for a in server.get("/lora-adapters")[1]}


# ---- what is computed


WEIGHTED = json.load(open(os.path.join(DATA, "goldens", "weighted.json")))["entries"]


@pytest.mark.parametrize("entry", WEIGHTED, ids=lambda e: e["name"])
def test_equals_what_peft_combines(many, entry):
    parts = [{"name": os.path.basename(a), "scale": w} for a, w in zip(entry["adapters"], entry["weights"])]
    for case in entry["cases"].values():
        answers = []
        for order in (parts, parts[::-1]):
            status, answer, _ = ask(many, prompt=case["prompt"], max_tokens=len(case["greedy"]), temperature=0,
                                    ignore_eos=True, return_token_ids=True, logprobs=5, adapters=order)
            assert status == 200, answer
            answers.append(answer["choices"][0])
        n = case["greedy_safe_len"]
        assert answers[0]["token_ids"][:n] == case["greedy"][:n]
        assert answers[0] == answers[1]
        mine = sorted(answers[0]["logprobs"]["top_logprobs"][0].values(), reverse=True)[:5]
        best = case["last"]["top_logits"]
        assert max(abs((a - mine[0]) - (b - best[0])) for a, b in zip(mine, best)) < 2e-3


def test_mixed_batches_of_blends_equal_each_alone(many):
    voices = ["tiny", "qv_r4", "0.5*qv_r4", "qv_r4+rslora_r8", "rslora_r8+0.25*qv_r4", "patterns+head_r4+-0.7*qv_r4",
              "dora_r3", "dora_r3+qv_r4", "0.1*qv_r4+0.2*rslora_r8+0.3*patterns+0.4*head_r4+0.5*all_r8_bf16+0.6*dora_r3",
              "embed_r3+head_r4", "mts_norms_r2", "alora_r4"]
    jobs = [(v, [1] + [(11 * i + k) % 380 + 4 for k in range(3 + 7 * i % 40)]) for i, v in enumerate(voices * 2)]

    def one(job):
        status, answer, _ = ask(many, model=job[0], prompt=job[1], max_tokens=20, temperature=0, ignore_eos=True,
                                return_token_ids=True, logprobs=3)
        assert status == 200, answer
        return answer["choices"]

    alone = [one(job) for job in jobs]
    assert len({json.dumps(a[0]["token_ids"]) for a in alone}) > len(voices)
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        for _ in range(2):
            assert list(pool.map(one, jobs)) == alone


def test_weight_one_is_the_adapter_and_weight_zero_the_base(many):
    plain, head, fingerprint = speak(many, model="qv_r4")
    base, base_head, base_fingerprint = speak(many, model="tiny")
    digest = next(m["digest"] for m in many.get("/v1/models")[1]["data"] if m["id"] == "qv_r4")
    assert digest.startswith(head["x-adapter-digest"]) and plain != base
    number = ids_of(many)["qv_r4"]
    for body in ({"model": "1.0*qv_r4"}, {"adapters": [{"name": "qv_r4", "scale": 1}]}, {"adapters": [{"name": "qv_r4"}]},
                 {"model": "0.25*qv_r4+0.75*qv_r4"}, {"lora": [{"id": number, "scale": 1.0}]}, {"model": "qv_r4+0*head_r4"}):
        got, h, f = speak(many, **body)
        assert (got, f, h["x-adapter"], h["x-adapter-digest"]) == (plain, fingerprint, "qv_r4", head["x-adapter-digest"]), body
    for body in ({"model": "0*qv_r4"}, {"model": "qv_r4+-1*qv_r4"}, {"adapters": []}, {"lora": []},
                 {"adapters": [{"name": "qv_r4", "scale": 0}]}, {"lora": [{"id": i, "scale": 0} for i in ids_of(many).values()]},
                 {"model": "base"}, {"model": "base:tiny"}, {"model": ""}, {"model": "base", "headers": {"X-Adapter": "tiny"}}):
        got, h, f = speak(many, **body)
        assert (got, f, h["x-adapter"], h["x-adapter-generation"]) == (base, base_fingerprint, "none", "0"), body
        assert "x-adapter-digest" not in h and "x-adapter-always" not in h


def test_every_form_is_the_same_voice(many):
    number = ids_of(many)
    want, head, fingerprint = speak(many, model="qv_r4+0.5*rslora_r8")
    assert head["x-adapter"] == "qv_r4+0.5*rslora_r8" and len(head["x-adapter-digest"]) == 16
    generations = {m["id"]: m.get("generation") for m in many.get("/v1/models")[1]["data"]}
    assert head["x-adapter-generation"] == f"{generations['qv_r4']},{generations['rslora_r8']}"
    named = [{"name": "rslora_r8", "scale": 0.5}, {"name": "qv_r4"}]
    numbered = [{"id": number["rslora_r8"], "scale": 0.5}, {"id": number["patterns"], "scale": 0}, {"id": number["qv_r4"], "scale": 1}]
    for body in ({"model": "0.5 * rslora_r8 + qv_r4"}, {"model": "tiny:qv_r4+0.5*rslora_r8"}, {"adapters": named},
                 {"model": "tiny", "adapters": named}, {"model": "rslora_r8+qv_r4+-0.5*rslora_r8", "adapters": named},
                 {"lora": numbered}, {"model": "tiny", "lora": numbered, "adapters": named[::-1]},
                 {"headers": {"X-Adapter": "0.5*rslora_r8+qv_r4"}}, {"model": "tiny", "headers": {"X-Adapter": "qv_r4+0.5*rslora_r8"}},
                 {"adapters": [{"name": f"qv_r4@{generations['qv_r4']}"}, named[0]]}):
        got, h, f = speak(many, **body)
        assert (got, f, h["x-adapter-digest"]) == (want, fingerprint, head["x-adapter-digest"]), body
        if "@" not in json.dumps(body):
            assert h["x-adapter"] == head["x-adapter"]


def test_choices_streams_and_chat(many):
    voice = [{"name": "qv_r4", "scale": 2}, {"name": "head_r4", "scale": -0.5}]
    want = speak(many, adapters=voice)[0][0]
    status, answer, head = ask(many, prompt=[PROMPT, PROMPT], n=2, max_tokens=8, temperature=0, ignore_eos=True,
                               return_token_ids=True, adapters=voice)
    assert status == 200 and [c["token_ids"] for c in answer["choices"]] == [want] * 4
    assert answer["model"] == head["x-adapter"] == "-0.5*head_r4+2*qv_r4"
    body = {"adapters": voice, "max_tokens": 8, "temperature": 0, "ignore_eos": True}
    status, events = many.post("/v1/completions", {**body, "prompt": PROMPT, "stream": True, "return_token_ids": True})
    chunks = [json.loads(l[6:]) for l in events.split("\n") if l.startswith("data: {")]
    assert status == 200 and [i for c in chunks for i in c["choices"][0].get("token_ids", [])] == want
    chat = {**body, "messages": [{"role": "user", "content": "tell me"}]}
    texts = [many.post("/v1/chat/completions", b)[1]["choices"][0]["message"]["content"]
             for b in (chat, {**chat, "adapters": None, "model": "2*qv_r4+-0.5*head_r4"}, {**chat, "adapters": None})]
    assert texts[0] == texts[1] != texts[2]


# ---- what is refused


def test_refusals(many):
    assert refused(many, 404, "nosuch", model="qv_r4+nosuch")["code"] == "model_not_found"
    assert refused(many, 404, "nosuch", adapters=[{"name": "nosuch", "scale": 0}])["code"] == "model_not_found"
    assert refused(many, 404, "nosuch", model="0*nosuch")["code"] == "model_not_found"
    assert refused(many, 404, "4096", model="qv_r4@4096")["code"] == "model_not_found"
    assert refused(many, 404, "00000000", model="qv_r4@00000000ffff")["code"] == "model_not_found"
    refused(many, 400, "0.5*", model="qv_r4*0.5")
    refused(many, 400, "version", model="qv_r4@new")
    refused(many, 400, "missing", model="qv_r4+")
    refused(many, 400, "-100 to 100", model="1000*qv_r4")
    refused(many, 400, "at most 8", model="+".join(f"0.{i}*{v}" for i in range(1, 2) for v in [*VOICES, *MORE]))
    refused(many, 400, "stands alone", model="mts_norms_r2+qv_r4")
    refused(many, 400, "stands alone", model="0.5*mts_norms_r2")
    refused(many, 400, "invocation", model="alora_r4+qv_r4")
    for adapters, says in ((1, "an array"), (["qv_r4"], "an object"), ([{}], "name: missing"), ([{"name": 3}], "a string"),
                           ([{"name": ""}], "missing"), ([{"name": "qv_r4", "weight": 1}], "weight"),
                           ([{"name": "qv_r4", "scale": "1"}], "a number"), ([{"name": "qv_r4", "scale": 101}], "-100 to 100"),
                           ([{"name": "qv_r4", "scale": True}], "a number"), ([{"name": "tiny", "scale": 0.5}], "the base itself"),
                           ([{"name": "qv_r4@"}], "version"), ([{"name": "qv_r4"}] * 33, "at most 32")):
        error = refused(many, 400, says, adapters=adapters)
        assert error["param"] == "adapters", error
    for field in ("lora_path", "adapter_id", "adapter", "lora_request"):
        assert refused(many, 400, "adapters", **{field: "qv_r4"})["param"] == field


def test_places_that_disagree(many):
    number = ids_of(many)["qv_r4"]
    for body in ({"model": "head_r4", "adapters": [{"name": "qv_r4"}]}, {"model": "0.5*qv_r4", "adapters": [{"name": "qv_r4"}]},
                 {"model": "qv_r4", "adapters": []}, {"model": "qv_r4", "lora": [{"id": number, "scale": 0}]},
                 {"adapters": [{"name": "head_r4"}], "lora": [{"id": number, "scale": 1}]}):
        assert "but" in refused(many, 400, "names", **body)["message"]
    status, answer, _ = ask(many, headers={"X-Adapter": "head_r4"}, prompt=PROMPT, model="qv_r4")
    assert status == 400 and "X-Adapter" in answer["error"]["message"]
    assert refused(many, 404, "gpt-4o", model="gpt-4o")["code"] == "model_not_found"
    refused(many, 400, "but", model="gpt-4o", adapters=[{"name": "qv_r4"}])


# ---- llama-server's forms, and what went wrong with them there


def test_llama_server_unknown_ids_and_malformed_entries_are_refused(many):
    last = max(ids_of(many).values())
    assert refused(many, 400, f"from 0 to {last}", lora=[{"id": last + 1, "scale": 1}])["param"] == "lora"
    refused(many, 400, "id 99", lora=[{"id": 99, "scale": 0}])
    refused(many, 400, "twice", lora=[{"id": 0, "scale": 1}, {"id": 0, "scale": 0.5}])
    refused(many, 400, "scale: missing", lora=[{"id": 0}])
    refused(many, 400, "id: missing", lora=[{"scale": 1}])
    refused(many, 400, "whole number", lora=[{"id": -1, "scale": 1}])
    refused(many, 400, "path", lora=[{"id": 0, "scale": 1, "path": "/x"}])
    refused(many, 400, "an array", lora={"id": 0, "scale": 1})


def test_llama_server_ids_stay_with_their_adapters(many):
    before = ids_of(many)
    assert sorted(before.values()) == list(range(len(before)))
    assert list(before)[0] == next(iter(VOICES)), "the command line's order, as llama-server has it"
    path = os.path.join(ADAPTERS, "shows_A")
    assert many.admin_request("POST", "/v1/load_lora_adapter", {"lora_name": "aaa", "lora_path": path})[0] == 200
    after = ids_of(many)
    assert after.pop("aaa") == len(before) and after == before
    assert many.admin_request("POST", "/v1/unload_lora_adapter", {"lora_name": "aaa"})[0] == 200
    refused(many, 400, f"id {len(before)}", lora=[{"id": len(before), "scale": 1}])
    assert many.admin_request("POST", "/v1/load_lora_adapter", {"lora_name": "bbb", "lora_path": path})[0] == 200
    assert ids_of(many) == {**before, "bbb": len(before) + 1}, "nobody inherits a number"
    assert many.admin_request("POST", "/v1/unload_lora_adapter", {"lora_name": "bbb"})[0] == 200


def test_llama_server_scales_of_all_requests():
    with Server(LLAMA, VOICES, ["--threads", "2"], name="tiny") as server:
        def post(body):
            status, text = server.admin_request("POST", "/lora-adapters", body)
            return status, json.loads(text)

        number = ids_of(server)
        base = speak(server)[0]
        blend = speak(server, model="qv_r4+0.5*head_r4")[0]
        listed = json.loads(server.admin_request("GET", "/lora-adapters")[1])
        assert all(a["scale"] == 0 for a in listed) and speak(server, model="tiny")[0] == base != blend
        assert ADAPTERS in listed[0]["path"] and ADAPTERS not in json.dumps(server.get("/lora-adapters")[1])
        assert server.post("/lora-adapters", [])[0] == 405  # operators alone
        assert post([{"id": number["qv_r4"], "scale": 1}, {"id": number["head_r4"], "scale": 0.5}]) == (200, {"success": True})
        got, head, _ = speak(server)
        assert got == blend and head["x-adapter"] == "0.5*head_r4+qv_r4"
        assert {a["path"]: a["scale"] for a in server.get("/lora-adapters")[1] if a["scale"]} == {"qv_r4": 1.0, "head_r4": 0.5}
        assert speak(server, model="tiny")[0] == speak(server, lora=[])[0] == speak(server, adapters=[])[0] == base
        assert speak(server, model="patterns")[1]["x-adapter"] == "patterns"
        for body, says in (([{"path": "/tmp/x.gguf", "scale": 1}], "path"), ([{"id": 77, "scale": 1}], "77"), ({}, "an object"),
                           ([{"id": 0, "scale": 1}, {"id": 0, "scale": 1}], "twice"), ([{"id": 0, "scale": 1e9}], "100")):
            status, answer = post(body)
            assert status == 400 and says in answer["error"]["message"], answer
        assert speak(server)[0] == blend, "a refused change changes nothing"
        assert post([{"id": number["patterns"], "scale": -1}]) == (200, {"success": True})
        assert speak(server)[1]["x-adapter"] == "-1*patterns", "those not listed go to 0"
        assert server.admin_request("POST", "/v1/unload_lora_adapter", {"lora_name": "patterns"})[0] == 200
        assert refused(server, 404, "requests that name none")["code"] == "model_not_found", "never silently the base"
        assert post([])[0] == 200 and speak(server)[0] == base


# ---- names for sums


def test_blends_have_names():
    blends = ["--blend", "formal=qv_r4+0.5*head_r4", "--blend", "half=0.5*formal", "--blend", "mix=half+patterns"]
    with Server(LLAMA, VOICES, ["--threads", "2", *blends], name="tiny") as server:
        listed = {m["id"]: m for m in server.get("/v1/models")[1]["data"]}
        assert listed["formal"]["parent"] == "tiny" and listed["formal"]["blend"] == "qv_r4+0.5*head_r4"
        assert server.get("/v1/models/half")[1]["blend"] == "0.5*formal"
        for name, same in (("formal", "0.5*head_r4+qv_r4"), ("half", "0.25*head_r4+0.5*qv_r4"),
                           ("mix", "0.25*head_r4+patterns+0.5*qv_r4"), ("2*half+-1*qv_r4", "0.5*head_r4")):
            got, head, fingerprint = speak(server, model=name)
            assert head["x-adapter"] == same and (got, fingerprint) == speak(server, model=same)[::2]
        assert speak(server, adapters=[{"name": "formal", "scale": 2}])[1]["x-adapter"] == "head_r4+2*qv_r4"
        assert speak(server, lora=[{"id": ids_of(server)["half"], "scale": 1}])[1]["x-adapter"] == "0.25*head_r4+0.5*qv_r4"
        refused(server, 400, "blend", model="formal@1")
        assert 'adapter="formal"' in server.admin_request("GET", "/metrics")[1]


@pytest.mark.parametrize("name", ["base", "tiny"])
def test_no_adapter_is_called_like_the_base(name, tmp_path):
    with Server(LLAMA, {}, ["--adapters", str(tmp_path), "--adapter-root", ADAPTERS, "--threads", "2"], name="tiny") as server:
        want = speak(server, model="tiny")[0]
        os.symlink(VOICES["qv_r4"], tmp_path / name)
        server.admin("POST", "/admin/v1/rescan")
        assert server.admin("PUT", "/admin/v1/adapters/" + name, {"source": "qv_r4"})[0] == 409
        assert server.admin_request("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": "qv_r4"})[0] == 400
        assert server.admin("POST", "/load_lora_adapter", {"lora_name": name, "lora_path": "qv_r4"})[1]["success"] is False
        assert [m["id"] for m in server.get("/v1/models")[1]["data"]] == ["tiny"] and speak(server, model=name)[0] == want
    with pytest.raises(RuntimeError) as ended:
        with Server(LLAMA, {name: VOICES["qv_r4"]}, name="tiny", wait=False) as server:
            server.process.wait(60)
    assert "base" in str(ended.value)


@pytest.mark.parametrize("blends, says", [
    (["a=b", "b=a"], "itself"), (["a=0.5*a"], "itself"), (["a=nosuch"], "nosuch"), (["qv_r4=head_r4"], "qv_r4"),
    (["tiny=qv_r4"], "the base"), (["base=qv_r4"], "the base"), (["a=qv_r4", "a=head_r4"], "twice"), (["a=qv_r4+"], "missing"), (["a=tiny"], "a"),
    (["a=qv_r4", "b=a", "c=b", "d=c", "e=d"], "levels"), (["a b=qv_r4"], "name")])
def test_blends_that_cannot_be(blends, says):
    server = Server(LLAMA, VOICES, [x for b in blends for x in ("--blend", b)], name="tiny", wait=False)
    with pytest.raises(RuntimeError) as ended:
        with server:
            server.process.wait(60)
    assert "ended with 1" in str(ended.value) or "ended with 2" in str(ended.value)
    assert says in str(ended.value)


def test_blends_of_the_admin_api(tmp_path):
    state = ["--state", str(tmp_path / "state.db"), "--threads", "2"]
    with Server(LLAMA, VOICES, state, name="tiny") as server:
        def put(name, text):
            status, answer, _ = server.admin("PUT", "/admin/v1/adapters/" + name, {"blend": text})
            return status, answer.get("error", {}).get("message", "")

        assert put("formal", "qv_r4 + 0.5*head_r4")[0] == 201 and put("more", "2*formal")[0] == 201
        assert speak(server, model="more")[1]["x-adapter"] == "head_r4+2*qv_r4"
        assert put("formal", "patterns")[0] == 200 and speak(server, model="more")[1]["x-adapter"] == "2*patterns"
        for text, says in (("more", "itself"), ("formal", "itself"), ("nosuch", "nosuch"), ("qv_r4*2", "number"), ("tiny", "no adapter")):
            status, message = put("formal", text)
            assert status in (400, 404) and says in message, (text, status, message)
        assert speak(server, model="more")[1]["x-adapter"] == "2*patterns"
        assert server.admin("GET", "/admin/v1/adapters/more")[1]["blend"] == "2*formal"
    with Server(LLAMA, VOICES, state, name="tiny") as server:
        assert speak(server, model="more")[1]["x-adapter"] == "2*patterns"
        assert server.admin("GET", "/admin/v1/adapters/more")[1]["blend"] == "2*formal"
    # What an operator has said since counts more than the configuration.
    with Server(LLAMA, VOICES, [*state, "--blend", "formal=qv_r4", "--blend", "new=formal"], name="tiny") as server:
        assert speak(server, model="formal+new")[1]["x-adapter"] == "2*patterns"
        assert server.admin("DELETE", "/admin/v1/adapters/formal")[0] == 200
        assert "part of a blend" in refused(server, 404, "formal", model="more")["message"]


def test_a_name_may_turn_from_files_to_a_blend_and_back():
    with Server(LLAMA, VOICES, ["--adapter-root", ADAPTERS, "--threads", "2"], name="tiny") as server:
        api = "/admin/v1/adapters/pt"
        assert server.admin("PUT", api, {"source": "shows_A"})[0] == 201
        first = server.admin("GET", api)[1]["generation"]
        assert server.admin("PUT", api, {"blend": "qv_r4+0.5*head_r4"})[0] == 200
        assert speak(server, model="pt")[1]["x-adapter"] == "0.5*head_r4+qv_r4"
        refused(server, 400, "blend", model=f"pt@{first}")
        status, answer, _ = server.admin("PUT", api, {"source": "shows_B"})
        assert status == 200, answer
        got = ask(server, model="pt", prompt=[1, 9], max_tokens=3, temperature=0)
        assert got[1]["choices"][0]["text"] == "BBB" and got[2]["x-adapter"] == "pt"
        assert not server.admin("GET", api)[1]["blend"]
        assert server.admin("PUT", api, {"blend": "qv_r4", "source": "shows_B"})[0] == 400


# ---- what a server adds to every voice


def test_a_policy_adapter_speaks_with_every_voice():
    with Server(LLAMA, {**VOICES, **MORE, "twin": VOICES["rslora_r8"]}, ["--threads", "2", "--always", "0.5*rslora_r8"], name="tiny") as server, \
         Server(LLAMA, VOICES, ["--threads", "2"], name="tiny") as free:
        got, head, fingerprint = speak(server, model="tiny")
        assert got == speak(free, model="0.5*rslora_r8")[0] and head["x-adapter"] == "none"
        assert head["x-adapter-always"] == "0.5*rslora_r8" and head["x-adapter-digest"]
        assert fingerprint == speak(free, model="0.5*rslora_r8")[2] != speak(free, model="tiny")[2]
        got, head, fingerprint = speak(server, model="qv_r4")
        assert (got, fingerprint) == speak(free, model="qv_r4+0.5*rslora_r8")[::2]
        assert head["x-adapter"] == "qv_r4" and head["x-adapter-generation"].count(",") == 1
        for body in ({}, {"adapters": []}, {"lora": []}, {"model": "0*rslora_r8"}):
            assert speak(server, **body)[0] == speak(free, model="0.5*rslora_r8")[0]
        # More of it is fine and stands beside the server's own part.
        got, head, _ = speak(server, model="qv_r4+0.25*rslora_r8")
        assert head["x-adapter"] == "qv_r4+0.25*rslora_r8" and head["x-adapter-generation"].count(",") == 2
        # None of it can be taken away, whatever it is called.
        number = ids_of(server)
        for body in ({"model": "-0.5*rslora_r8"}, {"model": "qv_r4+-0.001*rslora_r8"}, {"model": "-0.5*twin"},
                     {"adapters": [{"name": "rslora_r8", "scale": -0.5}]}, {"model": "-1*twin+qv_r4"},
                     {"lora": [{"id": number["rslora_r8"], "scale": -0.5}]}):
            assert refused(server, 400, "adds to every voice", **body)["code"] == "policy", body
        status, text = server.admin_request("POST", "/lora-adapters", [{"id": number["rslora_r8"], "scale": -0.5}])
        assert status == 400 and "adds to every voice" in text
        refused(server, 400, "0.5*rslora_r8", model="mts_norms_r2")  # can't be summed, so it doesn't speak at all
        refused(server, 400, "at most 7", model="+".join(f"0.1*{v}" for v in [*VOICES, *MORE][:8]))
        # Nor can a name that an operator has made for it.
        assert server.admin("PUT", "/admin/v1/adapters/anti", {"blend": "qv_r4+-1*rslora_r8"})[0] == 201
        for body in ({"model": "anti"}, {"adapters": [{"name": "anti", "scale": 0.1}]}):
            assert refused(server, 400, "adds to every voice", **body)["code"] == "policy"
        assert speak(server, model="-1*anti+2*qv_r4")[1]["x-adapter"] == "qv_r4+rslora_r8"
        # What a name is sent with, it gets again: the server's own part isn't doubled.
        assert speak(server, model=head["x-adapter"])[0] == got
        # Without it nobody is answered.
        assert server.admin_request("POST", "/v1/unload_lora_adapter", {"lora_name": "rslora_r8"})[0] == 200
        for model in ("tiny", "qv_r4"):
            assert refused(server, 503, "adds to every voice", model=model)["code"] != "model_not_found"


def test_a_policy_of_an_unknown_version_answers_nobody():
    with Server(LLAMA, VOICES, ["--always", "rslora_r8@00000000", "--threads", "2"], name="tiny") as server:
        for model in ("tiny", "qv_r4"):
            assert "rslora_r8" in refused(server, 503, "adds to every voice", model=model)["message"]


def test_a_policy_adapter_out_of_memory_is_loaded_first_and_without_its_files_nobody_is_answered(tmp_path):
    files = tmp_path / "kind"
    shutil.copytree(VOICES["rslora_r8"], files)
    with Server(LLAMA, {**VOICES, "kind": str(files)}, ["--always", "0.5*kind", "--threads", "2"], name="tiny") as server:
        want = {m: speak(server, model=m)[::2] for m in ("tiny", "qv_r4")}
        for model in want:
            assert server.admin("POST", "/admin/v1/adapters/kind/unload")[0] == 200
            assert speak(server, model=model)[::2] == want[model]
        assert server.admin("POST", "/admin/v1/adapters/kind/unload")[0] == 200
        shutil.rmtree(files)
        for model in want:
            assert "kind" in refused(server, 503, "adds to every voice", model=model)["message"]


@pytest.mark.parametrize("always", ["nosuch", "0.5*", "tiny", "qv_r4*0.5"])
def test_a_policy_that_cannot_be_is_no_start(always):
    with pytest.raises(RuntimeError) as ended:
        with Server(LLAMA, VOICES, ["--always", always], name="tiny", wait=False) as server:
            server.process.wait(60)
    assert "--always" in str(ended.value)


# ---- versions


def test_members_out_of_memory_are_loaded_for_the_request_that_needs_them(many):
    blend = "qv_r4+0.5*head_r4+-1*patterns"
    want = speak(many, model=blend)
    for name in ("qv_r4", "head_r4", "patterns"):
        assert many.admin("POST", f"/admin/v1/adapters/{name}/unload")[0] == 200
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: speak(many, model=blend), range(8)))
    assert all(g[0] == want[0] and g[2] == want[2] for g in got)
    assert all(g[1]["x-adapter-generation"] == want[1]["x-adapter-generation"] for g in got)


def test_callers_stay_with_a_version():
    with Server(LLAMA, VOICES, ["--adapter-root", ADAPTERS, "--threads", "2"], name="tiny") as server:
        api = "/admin/v1/adapters/shown"
        for letter, publish in (("A", "stable"), ("B", "canary")):
            assert server.admin("PUT", api, {"source": "shows_" + letter, "publish": publish})[0] < 300
        assert server.admin("PUT", api + "/traffic", {"stable": 50, "canary": 50})[0] == 200

        def letter(voice="shown", key=None, **body):
            status, answer, head = ask(server, headers={"Authorization": key} if key else None, model=voice, prompt=[1, 9],
                                       max_tokens=1, temperature=0, **body)
            assert status == 200
            return head["x-adapter-generation"] if "+" in voice else answer["choices"][0]["text"]

        for who in ({"key": "Bearer {}"}, {"user": "{}"}, {"safety_identifier": "{}"}, {"user": "{}", "key": "Bearer x"},
                    {"user": "{}", "voice": "shown+0.1*qv_r4"}):
            callers = [{k: v.format(i) for k, v in who.items()} for i in range(24)]
            first = [letter(**c) for c in callers]
            assert len(set(first)) == 2 and [letter(**c) for c in callers] == first, who
        assert len({letter() for _ in range(24)}) == 2  # nobody known: each request for itself


def test_one_request_has_one_version_for_all_its_choices():
    with Server(LLAMA, {}, ["--adapter-root", ADAPTERS, "--threads", "2"], name="tiny") as server:
        api = "/admin/v1/adapters/shown"
        for letter, publish in (("A", "stable"), ("B", "canary")):
            assert server.admin("PUT", api, {"source": "shows_" + letter, "publish": publish})[0] < 300
        assert server.admin("PUT", api + "/traffic", {"stable": 50, "canary": 50})[0] == 200
        seen = set()
        for _ in range(16):
            choices = server.post("/v1/completions", {"model": "shown", "prompt": [[1, 9]] * 3, "n": 2, "max_tokens": 2, "temperature": 0})[1]
            texts = {c["text"] for c in choices["choices"]}
            assert len(texts) == 1
            seen |= texts
        assert seen == {"AA", "BB"}


def test_a_blend_in_flight_keeps_the_versions_it_began_with():
    def load(letter):
        status, text = server.admin_request("POST", "/v1/load_lora_adapter", {
            "lora_name": "shown", "lora_path": os.path.join(ADAPTERS, "shows_" + letter), "load_inplace": True})
        assert status == 200, text

    with Server(LLAMA, {**VOICES, "shown": os.path.join(ADAPTERS, "shows_A")}, ["--adapter-root", ADAPTERS]) as server:
        first = speak(server, model="shown+0.01*qv_r4")
        c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        c.request("POST", "/v1/completions", json.dumps({"model": "shown+0.01*qv_r4", "prompt": [1, 9], "max_tokens": 480, "temperature": 0,
                                                         "ignore_eos": True, "stream": True}), {"Content-Type": "application/json"})
        reply = c.getresponse()
        text = reply.readline()
        load("B")
        second = speak(server, model="shown+0.01*qv_r4")
        assert "B" in json.dumps(ask(server, model="shown+0.01*qv_r4", prompt=[1, 9], max_tokens=4, temperature=0)[1]["choices"][0]["text"])
        text += reply.read()
        c.close()
        letters = "".join(json.loads(l[6:])["choices"][0]["text"] for l in text.decode().split("\n") if l.startswith("data: {"))
        assert letters == "A" * 480
        assert first[1]["x-adapter-digest"] != second[1]["x-adapter-digest"] and first[2] != second[2]
        generation = second[1]["x-adapter-generation"].split(",")[1]
        assert speak(server, model=f"shown@{generation}+0.01*qv_r4")[1]["x-adapter"] == f"0.01*qv_r4+shown@{generation}"
        assert speak(server, model=f"0.01*qv_r4+shown@{generation}")[0] == second[0]
        load("A")
        assert speak(server, model="shown+0.01*qv_r4")[0] == first[0]


def test_blends_while_everything_changes_mix_nothing():
    """Every token shows who spoke: it must be the version that the reply's headers name."""
    options = ["--adapter-root", ADAPTERS, "--threads", "2", "--always", "0.001*rslora_r8", "--keep-last-good", "20ms"]
    voices = ["shown", "shown+0.01*qv_r4", "mix", "0.01*patterns+shown+0.01*qv_r4", "1.0*shown", "mix+0.01*head_r4"]
    with Server(LLAMA, VOICES, options, name="tiny") as server:
        api, letters, done, problems, counts = "/admin/v1/adapters/", {}, threading.Event(), [], []

        def put(letter):
            status, answer, _ = server.admin("PUT", api + "shown", {"source": "shows_" + letter})
            assert status in (200, 201), answer
            letters[str(answer["generation"])] = letter

        def client(n):
            said = []
            while not done.is_set():
                status, answer, head = ask(server, model=voices[(n + len(said)) % len(voices)], prompt=[1, 9],
                                           max_tokens=1 + len(said) % 20, temperature=0, ignore_eos=True)
                if status != 200:
                    problems.append(answer)
                    break
                names = [term.split("*")[-1] for term in head["x-adapter"].split("+")]
                said.append((head["x-adapter-generation"].split(",")[names.index("shown")], answer["choices"][0]["text"]))
            counts.append(said)

        put("A")
        assert server.admin("PUT", api + "mix", {"blend": voices[1]})[0] == 201
        threads = [threading.Thread(target=client, args=(n,)) for n in range(6)]
        [t.start() for t in threads]
        for i in range(80):
            put("ABCD"[i % 4])
            server.admin("POST", api + ["shown", "qv_r4", "rslora_r8", "patterns"][i % 4] + "/unload")
            if i % 5 == 0:
                server.admin("PUT", api + "mix", {"blend": voices[(1, 3)[i % 2]]})
            if i % 7 == 0:
                server.admin("POST", api + "shown/rollback")
        done.set()
        [t.join(60) for t in threads]
        wrong = [(generation, text) for said in counts for generation, text in said if set(text) != {letters.get(generation)}]
        assert problems == [] and wrong == [] and len(counts) == 6 and all(counts)


def hot_adapter(folder, value, pad):
    """An adapter whose logits are all `value` times a number near 1: finite alone, not with a weight of 100."""
    make_fingerprint(folder, FIRST_TOKEN, pad)
    path = os.path.join(folder, "adapter_model.safetensors")
    tensors = read_safetensors(path)
    dtype, shape, data = tensors["base_model.model.lm_head.lora_B.weight"]
    tensors["base_model.model.lm_head.lora_B.weight"] = (dtype, shape, struct.pack(f"<{shape[0]}f", *[value] * shape[0]))
    write_safetensors(path, tensors)
    return str(folder)


def test_nobody_talks_a_version_out_of_service_with_weights(tmp_path):
    with Server(LLAMA, VOICES, ["--adapter-root", str(tmp_path), "--threads", "2"], name="tiny") as server:
        api, generations = "/admin/v1/adapters/", {}
        for name, values in (("hot", (1, 3e37)), ("twin", (1, 3e37))):
            for n, value in enumerate(values):
                folder = hot_adapter(tmp_path / f"{name}{n}", value, n + (name == "twin"))
                status, answer, _ = server.admin("PUT", api + name, {"source": folder, "effect_test": "off"})
                assert status in (200, 201), answer
                generations[name] = answer["generation"]
        for _ in range(8):
            assert refused(server, 500, "finite", model="100*hot+-100*twin")
        for name, generation in generations.items():
            assert server.admin("GET", api + name)[1]["generation"] == generation, "rolled back"
            versions = server.admin("GET", f"{api}{name}/versions")[1]["data"]
            assert [v["failures"] for v in versions] == [0] * len(versions)
        assert ask(server, model="hot", prompt=PROMPT, max_tokens=2)[0] == 200


@pytest.mark.parametrize("always", [(), ("--always", "0.001*rslora_r8")])
def test_a_shadow_takes_its_adapters_place_in_the_sum(always):
    with Server(LLAMA, VOICES, ["--adapter-root", ADAPTERS, "--threads", "2", *always], name="tiny") as server:
        api = "/admin/v1/adapters/shown"
        for letter, publish in (("A", "stable"), ("B", "shadow")):
            assert server.admin("PUT", api, {"source": "shows_" + letter, "publish": publish})[0] < 300
        for voice, counts in (("shown", 8), ("0.5*shown", 16), ("shown+0.01*qv_r4", 16), ("qv_r4", 16)):
            assert len(ask_ids(server, voice, PROMPT, 8)) == 8
            assert server.admin("GET", api + "/shadow")[1]["n_tokens"] == counts, voice
        assert server.admin("GET", "/admin/v1/adapters")[1]["usage"]["n_retired"] == 0
