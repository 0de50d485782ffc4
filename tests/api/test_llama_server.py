"""What llama-server's clients call: /completion, /props, /slots."""
import json, urllib.request

import parrot
from harness import Server


def ask(server, **body):
    status, answer = server.post("/completion", {"prompt": "The bird", "temperature": 0, **body})
    assert status == 200, answer
    return answer


def test_completion_says_what_openais_does(server, client):
    for path in ("/completion", "/completions"):
        status, a = server.post(path, {"model": "qv_r4", "prompt": "The bird", "n_predict": 12, "temperature": 0, "min_p": 0})
        b = client.completions.create(model="qv_r4", prompt="The bird", max_tokens=12, temperature=0)
        assert status == 200 and a["content"] == b.choices[0].text and a["stop"] is True
        assert a["tokens_predicted"] == b.usage.completion_tokens and a["tokens_evaluated"] == b.usage.prompt_tokens
        assert a["model"] == "qv_r4" and a["timings"]["predicted_n"] == a["tokens_predicted"]


def test_its_other_paths(server, client):
    """Without /v1 as well; vectors in its own form; what was read, and whether a line has ended."""
    chat = {"model": "qv_r4", "messages": [{"role": "user", "content": "x"}], "max_tokens": 3, "temperature": 0}
    assert server.post("/chat/completions", chat)[1]["choices"] == server.post("/v1/chat/completions", chat)[1]["choices"]
    assert server.get("/models") == server.get("/v1/models")
    want = client.embeddings.create(model="qv_r4", input=["The bird", "x"]).data
    for path, body in (("/embedding", {"content": ["The bird", "x"]}), ("/embeddings", {"input": ["The bird", "x"]})):
        status, vectors = server.post(path, {"model": "qv_r4", **body})
        assert status == 200 and [v["index"] for v in vectors] == [0, 1], vectors
        for v, w in zip(vectors, want):
            assert len(v["embedding"]) == 1 and max(abs(a - b) for a, b in zip(v["embedding"][0], w.embedding)) < 1e-6
    raw = server.post("/embedding", {"model": "qv_r4", "content": "x", "embd_normalize": -1})[1][0]["embedding"][0]
    assert abs(sum(x * x for x in raw) - 1) > 0.01
    for body, named in (({"content": "x", "embd_normalize": 1}, "embd_normalize"), ({}, "content")):
        status, answer = server.post("/embedding", {"model": "qv_r4", **body})
        assert status == 400 and named in answer["error"]["message"]
    a = ask(server, n_predict=2)
    assert a["prompt"].endswith("The bird") and a["has_new_line"] is False
    assert ask(server, n_predict=3, grammar='root ::= "a\\n"')["has_new_line"] is True


def test_pieces_of_characters_are_bytes(server):
    text = "a\U0001F6B2 é"
    tokens = server.post("/tokenize", {"content": text, "with_pieces": True})[1]["tokens"]
    assert any(isinstance(t["piece"], list) for t in tokens)
    assert b"".join(bytes(t["piece"]) if isinstance(t["piece"], list) else t["piece"].encode() for t in tokens).decode() == text


def test_what_says_nothing_is_let_through(server):
    for body in ({"n_indent": 0}, {"adaptive_target": -1}, {"image_data": []}, {"reasoning_budget": -1}, {"thinking_token_budget": None}):
        assert ask(server, n_predict=3, **body)["content"] == ask(server, n_predict=3)["content"]


def test_n_cmpl_is_n(server):
    both = ask(server, n_predict=3, n_cmpl=2)
    assert [a["index"] for a in both] == [0, 1] and both[0]["content"] == both[1]["content"] == ask(server, n_predict=3)["content"]
    assert len(ask(server, n_predict=3, n=1, n_cmpl=2)) == 2  # its own name has the last word


def test_a_chat_is_counted_in_tokens(server):
    """vLLM's /tokenize takes messages."""
    chat = {"messages": [{"role": "user", "content": "The bird"}]}
    prompt = server.post("/apply-template", chat)[1]["prompt"]
    for more in ({}, {"add_generation_prompt": False}):
        status, answer = server.post("/tokenize", {"model": "tiny", **chat, **more, "return_token_strs": True})
        text = server.post("/detokenize", {"tokens": answer["tokens"]})[1]["prompt"]
        assert status == 200 and answer["count"] == len(answer["tokens"]) == len(answer["token_strs"])
        assert text == server.post("/apply-template", {**chat, **more})[1]["prompt"] and (text == prompt) == (not more)
    assert server.post("/v1/chat/completions/input_tokens", {"model": "tiny", **chat})[1]["input_tokens"] == server.post("/tokenize", chat)[1]["count"]
    status, answer = server.post("/tokenize", {"messages": [{"role": "bird", "content": "x"}]})
    assert status == 400 and "messages[0].role" in answer["error"]["message"]


def test_its_ends_are_named(server):
    a = ask(server, model="shows_A", n_predict=5, ignore_eos=True)
    assert a["content"] == "AAAAA" and a["stop_type"] == "limit" and a["stopping_word"] == ""
    a = ask(server, model="shows_A", n_predict=9, stop=["AAA"])
    assert a["content"] == "" and a["stop_type"] == "word" and a["stopping_word"] == "AAA"
    assert a["generation_settings"]["n_predict"] == 9 and a["generation_settings"]["stop"] == ["AAA"]


def test_its_defaults_are_llama_servers(server):
    one = ask(server, n_predict=12, temperature=0.8, seed=3)
    two = ask(server, n_predict=12, temperature=0.8, seed=3, top_k=40, top_p=0.95, min_p=0.05)
    assert one["content"] == two["content"]
    assert one["generation_settings"]["top_k"] == 40 and abs(one["generation_settings"]["min_p"] - 0.05) < 1e-6


def test_its_stream(server):
    body = json.dumps({"model": "shows_A", "prompt": "x", "n_predict": 4, "ignore_eos": True, "stream": True}).encode()
    request = urllib.request.Request(server.url + "/completion", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        seen = [json.loads(f[len("data: "):]) for f in reply.read().decode().strip().split("\n\n")]
    assert "".join(x["content"] for x in seen) == "AAAA" and [x["stop"] for x in seen] == [False] * (len(seen) - 1) + [True]
    assert sum(len(x["tokens"]) for x in seen) == 4 and seen[-1]["tokens_predicted"] == 4 and "timings" in seen[-1]


def test_tokens_probabilities_and_lists(server):
    a = ask(server, n_predict=4, return_tokens=True, n_probs=2, ignore_eos=True)
    assert len(a["tokens"]) == 4 and len(a["completion_probabilities"]) == 4
    assert len(a["completion_probabilities"][0]["top_logprobs"]) == 2
    many = ask(server, prompt=["The bird", "A bird"], n_predict=4, min_p=0)
    assert [x["index"] for x in many] == [0, 1] and many[0]["content"] == ask(server, n_predict=4, min_p=0)["content"]


def test_props_and_slots(server):
    status, props = server.get("/props")
    assert status == 200 and props["model_alias"] == "tiny" and "im_start" in props["chat_template"]
    assert props["default_generation_settings"]["n_ctx"] > 0 and "/" not in props["model_path"]
    said = ask(server, n_predict=-1, temperature=0.8, stop=[], grammar='root ::= "a"')["generation_settings"]
    assert props["default_generation_settings"]["params"] == said == {**said, "n_predict": -1, "top_k": 40}
    status, slots = server.get("/slots")
    assert status == 200 and len(slots) == props["total_slots"] and [s["id"] for s in slots] == list(range(len(slots)))


def test_models_say_what_they_are(server):
    models = {m["id"]: m for m in server.get("/v1/models")[1]["data"]}
    assert models["tiny"]["meta"]["n_embd"] == 32 and models["tiny"]["meta"]["n_params"] > 1000
    assert models["tiny"]["meta"]["n_ctx_train"] >= models["tiny"]["max_model_len"] and "meta" not in models["qv_r4"]


def test_infill(tmp_path):
    marks = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>"]
    model = parrot.make(str(tmp_path / "model"), {marks[2]: "return a + b<|fim_pad|>no more"}, special=marks)
    with Server(model, {}, ["--threads", "2"], name="parrot") as s:
        ask = {"input_prefix": "def add(a, b):\n", "input_suffix": "\n\nprint(add(1, 2))", "n_predict": 30}
        status, answer = s.post("/infill", ask)
        assert status == 200 and answer["content"] == "return a + b" and answer["stop_type"] == "eos"
        same = s.post("/v1/completions", {"prompt": ask["input_prefix"], "suffix": ask["input_suffix"], "max_tokens": 30})[1]
        assert answer["tokens_evaluated"] == same["usage"]["prompt_tokens"]
        line = s.post("/infill", {**ask, "prompt": "    ", "input_extra": [{"filename": "b.py", "text": "x = 1"}]})[1]
        assert line["content"] == "return a + b" and line["tokens_evaluated"] > answer["tokens_evaluated"] + 20
        status, fim = s.post("/api/generate", {"prompt": ask["input_prefix"], "suffix": ask["input_suffix"], "stream": False})
        assert status == 200 and fim["response"] == "return a + b" and fim["prompt_eval_count"] == answer["tokens_evaluated"]
        assert s.post("/infill", {**ask, "input_suffix": ""})[1]["content"] == "return a + b"
        for body in ({"input_prefix": "x"}, {"input_suffix": "x"}, {**ask, "input_extra": [3]}, {**ask, "input_prefix": 3}):
            assert s.post("/infill", body)[0] == 400


def test_response_fields(server):
    ask = {"prompt": "a bird", "n_predict": 3, "ignore_eos": True, "response_fields": ["stop_type", "timings/predicted_n", "model/x", "nothing"]}
    assert server.post("/completion", ask) == (200, {"stop_type": "limit", "timings/predicted_n": 3})
    status, several = server.post("/completion", {**ask, "prompt": ["a", "b"], "response_fields": ["tokens_predicted"]})
    assert (status, several) == (200, [{"tokens_predicted": 3}] * 2)
    r = urllib.request.Request(server.url + "/completion", json.dumps({**ask, "stream": True}).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(r, timeout=60) as answer:
        seen = [json.loads(line[6:]) for line in answer.read().decode().split("\n") if line.startswith("data: ")]
    assert seen[-1] == {"stop_type": "limit", "timings/predicted_n": 3} and all("content" in x for x in seen[:-1])


def test_a_limit_of_time_waits_for_a_line(tmp_path):
    lines = parrot.make(str(tmp_path / "lines"), {"plain": "one\ntwo", "long": "xxxxxxxxx"})  # then the end, again and again
    with Server(lines, {}, ["--threads", "1"], name="lines") as s:
        ask = {"prompt": "<|cue_plain|>", "n_predict": 20000, "temperature": 0, "t_max_predict_ms": 1, "ignore_eos": True}
        status, answer = s.post("/completion", ask)
        assert status == 200 and answer["stop_type"] == "limit" and answer["content"].startswith("one\ntwo"), answer
        assert answer["tokens_predicted"] < 20000
        status, answer = s.post("/v1/completions", {**ask, "model": "lines", "max_tokens": 20000})
        assert status == 200 and answer["choices"][0]["finish_reason"] == "length" and answer["usage"]["completion_tokens"] < 20000
        status, whole = s.post("/completion", {**ask, "n_predict": 300, "prompt": "<|cue_long|>"})
        assert status == 200 and "\n" not in whole["content"] and whole["tokens_predicted"] == 300  # no line ended


def test_what_it_has_no_way_to_do_is_refused(server):
    for body in ({"response_fields": [3]}, {"post_sampling_probs": True}, {"n_indent": 2}, {"adaptive_target": 0.5}, {"adaptive_target": "0.5"}, {"image_data": [{"data": "x"}]},
                 {"reasoning_budget": 0}, {"thinking_token_budget": 9}, {"repetition_detection": {"max_pattern_size": 3}}, {"prompt": {"prompt_string": "x", "multimodal_data": []}}):
        status, answer = server.post("/completion", {"prompt": "x", **body})
        assert status == 400 and next(iter(body)) in answer["error"]["message"]
