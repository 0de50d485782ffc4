"""The real `ollama` package, unchanged but for its host."""
import json, urllib.request

import ollama
import pytest

HELLO = [{"role": "user", "content": "Hello, bird!"}]
EXACT = {"temperature": 0, "num_predict": 12}


@pytest.fixture(scope="module")
def llama(server):
    return ollama.Client(host=server.url)


def lines(server, path, body):
    request = urllib.request.Request(server.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        assert reply.headers["Content-Type"] == "application/x-ndjson"
        return [json.loads(line) for line in reply.read().decode().splitlines()]


def test_chat_says_what_openais_does(llama, client):
    r = llama.chat(model="qv_r4", messages=HELLO, options=EXACT)
    chat = client.chat.completions.create(model="qv_r4", max_tokens=12, temperature=0, messages=HELLO)
    assert r.message.role == "assistant" and r.message.content == chat.choices[0].message.content
    assert r.model == "qv_r4" and r.done is True and r.done_reason == chat.choices[0].finish_reason
    assert r.prompt_eval_count == chat.usage.prompt_tokens and r.eval_count == chat.usage.completion_tokens
    assert r.total_duration >= r.eval_duration > 0 and r.prompt_eval_duration > 0


def test_the_stream_says_the_same_and_is_the_default(server, llama):
    ask = {"model": "shows_A:latest", "messages": HELLO, "options": {"num_predict": 4}, "ignore_eos": True}
    seen = lines(server, "/api/chat", ask)
    assert "".join(x["message"]["content"] for x in seen) == "AAAA"
    assert [x["done"] for x in seen] == [False] * (len(seen) - 1) + [True] and len(seen) > 2
    assert seen[-1]["done_reason"] == "length" and seen[-1]["eval_count"] == 4
    assert all(x["model"] == "shows_A:latest" and x["created_at"].endswith("Z") for x in seen)
    parts = list(llama.chat(model="qv_r4", messages=HELLO, options=EXACT, stream=True))
    whole = llama.chat(model="qv_r4", messages=HELLO, options=EXACT)
    assert "".join(p.message.content for p in parts) == whole.message.content
    assert parts[-1].done and parts[-1].eval_count == whole.eval_count


def test_generate_goes_through_the_template_unless_raw(server, llama, client):
    r = llama.generate(model="qv_r4", prompt="Hello, bird!", options=EXACT)
    chat = client.chat.completions.create(model="qv_r4", max_tokens=12, temperature=0, messages=HELLO)
    assert r.response == chat.choices[0].message.content and r.prompt_eval_count == chat.usage.prompt_tokens
    r = llama.generate(model="qv_r4", prompt="Hello", system="Be a bird.", options=EXACT)
    both = [{"role": "system", "content": "Be a bird."}, {"role": "user", "content": "Hello"}]
    assert r.response == client.chat.completions.create(model="qv_r4", max_tokens=12, temperature=0,
                                                        messages=both).choices[0].message.content
    r = llama.generate(model="qv_r4", prompt="The bird", raw=True, options=EXACT)
    plain = client.completions.create(model="qv_r4", prompt="The bird", max_tokens=12, temperature=0)
    assert r.response == plain.choices[0].text and r.prompt_eval_count == plain.usage.prompt_tokens
    parts = list(llama.generate(model="qv_r4", prompt="The bird", raw=True, options=EXACT, stream=True))
    assert "".join(p.response for p in parts) == r.response and parts[-1].done


def test_options_are_those_of_the_sampler(server, client):
    def say(options):
        status, r = server.post("/api/generate", {"model": "tiny", "prompt": "a bird", "raw": True, "stream": False,
                                                  "options": {"num_predict": 12, **options}})
        assert status == 200, r
        return r["response"]
    more = {"temperature": 1.5, "top_k": 9, "top_p": 0.95, "min_p": 0.01, "typical_p": 0.99, "repeat_penalty": 1.2,
            "repeat_last_n": 8, "seed": 5, "presence_penalty": 0.1, "frequency_penalty": 0.1}
    same = client.completions.create(model="tiny", prompt="a bird", max_tokens=12, extra_body=more).choices[0].text
    assert say({**more, "num_ctx": 128, "num_gpu": 99, "num_thread": 1}) == same
    defaults = {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "seed": 7}
    assert say({"seed": 7}) == say(defaults)
    assert say({"seed": 7, "stop": ["e"]}) == say(defaults).split("e")[0]


def test_stop_reason_of_a_stop_string(server):
    status, r = server.post("/api/chat", {"model": "shows_A", "messages": HELLO, "stream": False,
                                          "options": {"stop": "AA", "num_predict": 9}})
    assert status == 200 and r["done_reason"] == "stop" and "AA" not in r["message"]["content"]


def test_formats_are_kept_to(llama):
    schema = {"type": "object", "properties": {"voice": {"enum": ["pt", "de"]}, "sings": {"type": "boolean"}},
              "required": ["voice", "sings"], "additionalProperties": False}
    ask = {"model": "tiny", "options": {"temperature": 0, "num_predict": 100}}
    said = json.loads(llama.chat(messages=HELLO, format=schema, **ask).message.content)
    assert said["voice"] in ("pt", "de") and isinstance(said["sings"], bool)
    said = json.loads(llama.generate(prompt="a bird", raw=True, format=schema, **ask).response)
    assert set(said) == {"voice", "sings"}
    assert llama.generate(prompt="x", format="json", **ask).response.lstrip().startswith("{")


def test_logprobs_are_of_the_tokens(server):
    ask = {"model": "qv_r4", "messages": HELLO, "options": EXACT, "logprobs": True, "top_logprobs": 2}
    status, whole = server.post("/api/chat", {**ask, "stream": False})
    assert status == 200 and len(whole["logprobs"]) == whole["eval_count"]
    assert len(whole["logprobs"][0]["top_logprobs"]) == 2 and whole["logprobs"][0]["logprob"] <= 0
    seen = lines(server, "/api/chat", ask)
    assert [p for x in seen for p in x.get("logprobs", [])] == whole["logprobs"]
    status, raw = server.post("/api/generate", {"model": "qv_r4", "prompt": "a bird", "raw": True, "options": EXACT,
                                                "logprobs": True, "stream": False})
    assert status == 200 and len(raw["logprobs"]) == raw["eval_count"] and raw["logprobs"][0]["bytes"]


def test_asking_nothing_loads(server, llama):
    r = llama.chat(model="qv_r4", messages=[])
    assert r.done and r.done_reason == "load" and r.message.content == ""
    r = llama.generate(model="qv_r4", prompt="", keep_alive="5m")
    assert r.done and r.done_reason == "load" and r.response == ""
    r = llama.generate(model="qv_r4", keep_alive=0)
    assert r.done and r.done_reason == "unload" and r.response == ""
    status, _ = server.post("/api/generate", {"model": "nobody"})
    assert status == 404


def test_models_are_listed_and_shown(llama, server):
    models = {m.model: m for m in llama.list().models}
    assert {"tiny:latest", "qv_r4:latest", "shows_A:latest"} <= set(models)
    assert models["tiny:latest"].details.family == "llama" and models["qv_r4:latest"].details.parent_model == "tiny"
    assert models["tiny:latest"].size > 0 and len(models["tiny:latest"].digest) == 64
    assert models["qv_r4:latest"].digest == next(
        m["digest"] for m in server.get("/v1/models")[1]["data"] if m["id"] == "qv_r4")
    running = {m.model: m for m in llama.ps().models}
    assert running["tiny:latest"].context_length > 0 and "qv_r4:latest" in running
    shown = llama.show("qv_r4:latest")
    assert "completion" in shown.capabilities and "im_start" in shown.template
    assert shown.modelinfo["general.architecture"] == "llama" and shown.modelinfo["llama.block_count"] > 0
    assert shown.details.quantization_level == "F32" and "ADAPTER qv_r4" in shown.modelfile
    with pytest.raises(ollama.ResponseError) as e:
        llama.show("nobody")
    assert e.value.status_code == 404


def test_the_rest_is_refused_with_a_reason(llama, server):
    for call in (lambda: llama.pull("x"), lambda: llama.push("x"), lambda: llama.delete("x"),
                 lambda: llama.copy("x", "y"), lambda: llama.create("x", from_="y")):
        with pytest.raises(ollama.ResponseError) as e:
            call()
        assert e.value.status_code == 501 and "operator" in e.value.error
    assert server.post("/api/blobs/sha256:0", {})[0] == 501
    for path in ("/api/me", "/api/signout", "/api/web_search", "/api/web_fetch"):
        status, answer = server.post(path, {"query": "parrots"})
        assert status == 501 and path in answer["error"] and "accounts" in answer["error"]


def test_probes(server):
    assert server.get("/") == (200, "Lorikeet is running")
    request = urllib.request.Request(server.url + "/", method="HEAD")
    with urllib.request.urlopen(request, timeout=10) as reply:
        assert reply.status == 200
    assert server.get("/api/version")[1]["version"].count(".") == 2


@pytest.mark.parametrize("path, body, named", [
    ("chat", {"messages": [{"role": "user", "content": "x", "images": ["aGk="]}]}, "images"),
    ("chat", {"messages": [{"role": "bird", "content": "x"}]}, "messages[0].role"),
    ("chat", {"messages": ["x"]}, "messages[0]"),
    ("chat", {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]},
     "tool_calls"),
    ("chat", {"options": {"temperature": "hot"}}, "temperature"),
    ("chat", {"options": {"num_predict": "many"}}, "num_predict"),
    ("chat", {"options": [1]}, "options"),
    ("chat", {"options": {"tfs_z": 0.5}}, "tfs_z"),
    ("chat", {"format": "xml"}, "format"),
    ("chat", {"think": 3}, "think"),
    ("chat", {"stream": "yes"}, "stream"),
    ("generate", {"images": ["aGk="]}, "images"),
    ("generate", {"template": "{{ .Prompt }}"}, "template"),
    ("generate", {"context": [1, 2]}, "context"),
    ("generate", {"n": 2}, "n"),
    ("generate", {"n_cmpl": 2}, "n_cmpl"),
])
def test_what_is_wrong_is_named(server, path, body, named):
    status, answer = server.post("/api/" + path, {"model": "tiny", "messages": HELLO, "prompt": "x", **body})
    assert status == 400 and set(answer) == {"error"} and named in answer["error"]


def test_an_unknown_voice_is_not_found(llama):
    with pytest.raises(ollama.ResponseError) as e:
        llama.chat(model="nobody", messages=HELLO)
    assert e.value.status_code == 404 and "nobody" in e.value.error


def test_past_calls_reach_the_template(server):
    ask = {"model": "tiny", "stream": False, "options": {"num_predict": 1}}
    calls = [{"role": "user", "content": "Weather?"},
             {"role": "assistant", "content": "I look.", "thinking": "hm",
              "tool_calls": [{"function": {"name": "look", "arguments": {"at": "Rio"}}}]},
             {"role": "tool", "content": "sun", "tool_name": "look"}]
    function = {"name": "look", "arguments": "{\"at\": \"Rio\"}"}
    same = [calls[0], {"role": "assistant", "content": "I look.", "tool_calls": [{"type": "function", "function": function}]},
            {"role": "tool", "content": "sun"}]
    status, answer = server.post("/api/chat", {**ask, "messages": calls})
    assert status == 200
    assert answer["prompt_eval_count"] == server.post("/v1/chat/completions/input_tokens",
                                                      {"model": "tiny", "messages": same})[1]["input_tokens"]


def turns_of(n):
    return [{"role": "system", "content": "Be a bird."}] + [
        t for i in range(n) for t in ({"role": "user", "content": f"Question {i}?"}, {"role": "assistant", "content": f"Answer {i}."})] + [
        {"role": "user", "content": "And now?"}]


def test_what_is_longer_than_num_ctx_loses_its_oldest_turns(server):
    def ask(messages, options=None, **more):
        return server.post("/api/chat", {"model": "tiny", "messages": messages, "stream": False, "options": {
            "num_predict": 5, "temperature": 0, **(options or {})}, **more})
    count = lambda messages: server.post("/v1/chat/completions/input_tokens", {"model": "tiny", "messages": messages})[1]["input_tokens"]
    turns = turns_of(5)
    whole, some = count(turns), turns[:1] + turns[7:]
    limit = count(some) + 3
    assert count(turns[:1] + turns[5:]) > limit
    status, r = ask(turns, {"num_ctx": limit})
    assert status == 200 and r["prompt_eval_count"] == count(some) <= limit < whole
    assert r["message"]["content"] == ask(some)[1]["message"]["content"]
    assert ask(turns)[1]["prompt_eval_count"] == whole  # no wish
    status, r = ask([turns[-1]], {"num_ctx": 6, "num_keep": 2})
    assert status == 200 and r["prompt_eval_count"] == 6  # of one turn: its beginning and its end
    assert ask(turns, {"num_ctx": limit}, truncate=False)[1]["prompt_eval_count"] == whole
    for options in ({"num_ctx": -1}, {"num_ctx": "many"}, {"num_keep": -2}):
        status, answer = ask(turns, options)
        assert status == 400 and next(iter(options)) in answer["error"]


def test_what_is_longer_than_the_context_is_cut_unless_asked_not_to(server):
    context = server.get("/props")[1]["default_generation_settings"]["n_ctx"]
    long = "a bird and " * context
    for path, body in (("/api/generate", {"prompt": long, "raw": True}), ("/api/generate", {"prompt": long}),
                       ("/api/chat", {"messages": [{"role": "user", "content": long}]})):
        ask = {"model": "tiny", "stream": False, "options": {"num_predict": 4}, **body}
        status, r = server.post(path, ask)
        assert status == 200 and r["prompt_eval_count"] == context - 4 and 0 < r["eval_count"] <= 4, r
        status, r = server.post(path, {**ask, "truncate": False})
        assert status == 400 and "context" in r["error"]
    status, r = server.post("/api/embed", {"model": "tiny", "input": [long, "a bird"]})
    assert status == 200 and len(r["embeddings"]) == 2 and r["prompt_eval_count"] > context - 2
    assert server.post("/api/embed", {"model": "tiny", "input": long, "truncate": False})[0] == 400


def test_cut_ids_are_the_first_and_the_last(server):
    ids = server.post("/tokenize", {"model": "tiny", "content": "one bird, two birds, three birds and four more birds", "add_special": True})[1]["tokens"]
    ask = {"model": "tiny", "raw": True, "prompt": "one bird, two birds, three birds and four more birds", "stream": False}
    status, r = server.post("/api/generate", {**ask, "options": {"num_predict": 6, "temperature": 0, "num_ctx": 8, "num_keep": 3}})
    same = server.post("/v1/completions", {"model": "tiny", "prompt": ids[:3] + ids[-5:], "max_tokens": 6, "temperature": 0})[1]
    assert status == 200 and r["prompt_eval_count"] == 8 and r["response"] == same["choices"][0]["text"]


def test_tags_have_the_voice_that_rules_choose(tmp_path):
    from conftest import LLAMA
    from harness import Server
    with Server(LLAMA, {}, ["--threads", "1", "--auto", "default=none"], name="tiny") as s:
        assert [m["name"] for m in s.get("/api/tags")[1]["models"]] == ["tiny:latest", "auto:latest"]
        status, r = s.post("/api/chat", {"model": "auto:latest", "messages": HELLO, "stream": False, "options": {"num_predict": 2}})
        assert status == 200 and r["model"] == "auto:latest", r
        assert s.post("/api/show", {"model": "auto:latest"})[0] == 200
