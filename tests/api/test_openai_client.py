"""The real `openai` package, unchanged but for its base URL."""
import openai
import pytest

HELLO = [{"role": "user", "content": "Hello, bird!"}]


def test_models_lists_base_and_voices(client):
    models = {m.id: m for m in client.models.list()}
    assert {"tiny", "qv_r4", "shows_A"} <= set(models)
    assert models["qv_r4"].parent == "tiny" and models["tiny"].parent is None
    assert "/" not in models["qv_r4"].root
    assert client.models.retrieve("qv_r4").id == "qv_r4"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")


def test_chat_and_its_stream_say_the_same(client):
    whole = client.chat.completions.create(model="qv_r4", messages=HELLO, max_tokens=20, temperature=0)
    assert whole.model == "qv_r4" and whole.object == "chat.completion"
    assert whole.choices[0].message.role == "assistant"
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert whole.system_fingerprint
    stream = client.chat.completions.create(model="qv_r4", messages=HELLO, max_tokens=20, temperature=0, stream=True,
                                            stream_options={"include_usage": True})
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert {c.id for c in chunks} == {chunks[0].id}


def test_every_voice_differs_and_base_is_the_default_name(client):
    def say(model):
        return client.completions.create(model=model, prompt="A parrot", max_tokens=16, temperature=0,
                                         extra_body={"ignore_eos": True}).choices[0].text
    texts = {m: say(m) for m in ("tiny", "qv_r4", "all_r8_bf16", "rslora_r8", "shows_A")}
    assert len(set(texts.values())) == len(texts)
    assert set(texts["shows_A"]) == {"A"}
    assert say("tiny:shows_A") == texts["shows_A"]


def test_header_names_the_voice_too(client):
    raw = client.completions.with_raw_response.create(model="tiny", prompt="x", max_tokens=4, temperature=0,
                                                      extra_headers={"X-Adapter": "shows_A"})
    assert raw.headers["X-Adapter"] == "shows_A" and int(raw.headers["X-Adapter-Generation"]) >= 1
    assert raw.headers["X-Request-Id"]
    assert raw.parse().choices[0].text == "AAAA"


def test_unknown_voice_is_an_error_never_the_base(client):
    with pytest.raises(openai.NotFoundError) as e:
        client.chat.completions.create(model="nobody", messages=HELLO)
    assert e.value.body["code"] == "model_not_found" and "nobody" in e.value.body["message"]


def test_completions_take_every_form_of_prompt(client):
    one = client.completions.create(model="tiny", prompt="The bird", max_tokens=5, temperature=0)
    two = client.completions.create(model="tiny", prompt=["The bird", "Bom dia"], max_tokens=5, temperature=0)
    assert [c.index for c in two.choices] == [0, 1] and two.choices[0].text == one.choices[0].text
    ids = client.completions.create(model="tiny", prompt=[1, 40, 41], max_tokens=5, temperature=0)
    lists = client.completions.create(model="tiny", prompt=[[1, 40, 41], [1, 9]], max_tokens=5, temperature=0)
    assert lists.choices[0].text == ids.choices[0].text and len(lists.choices) == 2


def test_logprobs_n_seed_and_stop(client):
    chat = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=4, temperature=0, logprobs=True,
                                          top_logprobs=3)
    content = chat.choices[0].logprobs.content
    assert len(content) == chat.usage.completion_tokens
    for t in content:
        assert len(t.top_logprobs) == 3 and t.logprob <= 0
        assert t.top_logprobs[0].logprob == pytest.approx(t.logprob)
        assert sorted((x.logprob for x in t.top_logprobs), reverse=True) == [x.logprob for x in t.top_logprobs]
    kwargs = dict(model="tiny", prompt="The", max_tokens=12, temperature=1.2, n=3, seed=7)
    a, b = client.completions.create(**kwargs), client.completions.create(**kwargs)
    assert [c.text for c in a.choices] == [c.text for c in b.choices]
    assert len({c.text for c in a.choices}) > 1
    stopped = client.completions.create(model="shows_A", prompt="x", max_tokens=30, temperature=0, stop=["AAA"])
    assert stopped.choices[0].text == "" and stopped.choices[0].finish_reason == "stop"
    cut = client.completions.create(model="shows_A", prompt="x", max_tokens=5, temperature=0)
    assert cut.choices[0].text == "AAAAA" and cut.choices[0].finish_reason == "length"


def test_echo_and_prompt_logprobs(client):
    r = client.completions.create(model="tiny", prompt="The bird", max_tokens=0, echo=True, logprobs=1, temperature=0)
    assert r.choices[0].text == "The bird"
    assert r.choices[0].logprobs.token_logprobs[0] is None
    assert all(x <= 0 for x in r.choices[0].logprobs.token_logprobs[1:])


def test_best_of_shows_the_likeliest(client):
    ask = dict(model="tiny", prompt=["The bird", "Bom dia"], max_tokens=6, temperature=1.5, seed=5, logprobs=0)
    every = client.completions.create(**ask, n=4)
    best = client.completions.create(**ask, n=2, best_of=4)

    def mean(choice):
        return sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs)
    for p in range(2):
        group = sorted(every.choices[4 * p:4 * p + 4], key=mean, reverse=True)
        assert [c.text for c in best.choices[2 * p:2 * p + 2]] == [c.text for c in group[:2]]
    assert [c.index for c in best.choices] == [0, 1, 2, 3]
    assert best.usage == every.usage  # what was made is counted, shown or not
    plain = client.completions.create(**dict(ask, logprobs=None), n=1, best_of=4)
    assert plain.choices[0].text == best.choices[0].text and plain.choices[0].logprobs is None


def test_prompt_logprobs_in_vllms_form(client, server):
    echo = client.completions.create(model="tiny", prompt="The bird", max_tokens=0, echo=True, logprobs=2, temperature=0)
    values = echo.choices[0].logprobs.token_logprobs
    r = client.completions.create(model="tiny", prompt="The bird", max_tokens=1, extra_body={"prompt_logprobs": 2})
    entries, ids = r.choices[0].prompt_logprobs, server.post("/tokenize", {"content": "The bird", "add_special": True})[1]["tokens"]
    assert entries[0] is None and len(entries) == len(ids) == len(values)
    for token, value, entry in list(zip(ids, values, entries))[1:]:
        own = entry[str(token)]
        assert own["logprob"] == pytest.approx(value) and own["rank"] >= 1 and 2 <= len(entry) <= 3
        assert {e["rank"] for e in entry.values()} >= {1, 2}
        assert all(e["logprob"] >= own["logprob"] for e in entry.values() if e["rank"] < own["rank"])
    chat = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=1, extra_body={"prompt_logprobs": 0})
    assert chat.prompt_logprobs[0] is None and len(chat.prompt_logprobs) == chat.usage.prompt_tokens


def test_logit_bias_and_bans(client, server):
    def token(letter):
        return str(server.post("/tokenize", {"content": letter, "add_special": False})[1]["tokens"][0])
    r = client.completions.create(model="tiny", prompt="x", max_tokens=3, temperature=0, logit_bias={token("B"): 100})
    assert r.choices[0].text == "BBB"
    r = client.completions.create(model="shows_A", prompt="x", max_tokens=3, temperature=0,
                                  logit_bias={token("A"): -100000})
    assert "A" not in r.choices[0].text


@pytest.mark.parametrize("body, named", [
    (dict(temperature=-1), "temperature"), (dict(top_p=1.5), "top_p"), (dict(max_tokens=-5), "max_tokens"),
    (dict(n=0), "n"), (dict(stop=[1]), "stop"), (dict(logit_bias={"x": 1}), "logit_bias"),
    (dict(messages=[]), "messages"), (dict(messages=[{"role": "user"}]), "content"), (dict(messages="hi"), "messages"),
    (dict(stream="yes"), "stream"), (dict(top_logprobs=50, logprobs=True), "top_logprobs"),
    (dict(response_format={"type": "json_schema", "json_schema": {"name": "x y", "schema": {}}}), "response_format"),
])
def test_bad_fields_are_named(client, body, named):
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(**{"model": "tiny", "messages": HELLO, "max_tokens": 2, **{}}, extra_body=body)
    assert named in e.value.body["message"]
    assert e.value.body["type"] == "invalid_request_error"


def test_known_fields_that_we_do_not_act_on_are_ignored(client):
    r = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=2, temperature=0, user="someone",
                                       metadata={"a": "b"}, store=False, service_tier="auto", parallel_tool_calls=True,
                                       reasoning_effort="low")
    assert r.choices[0].message.content is not None


def test_an_echo_is_of_what_is_continued(client):
    """vLLM's `echo` of a chat: the assistant's last words, if they are the last ones, as parts too."""
    begun = HELLO + [{"role": "assistant", "content": "A bird is"}]
    more = dict(continue_final_message=True, add_generation_prompt=False)
    kwargs = dict(model="tiny", max_tokens=4, temperature=0)
    plain = client.chat.completions.create(messages=begun, extra_body=more, **kwargs).choices[0].message.content
    whole = client.chat.completions.create(messages=begun, extra_body={**more, "echo": True}, n=2, **kwargs)
    assert [c.message.content for c in whole.choices] == ["A bird is" + plain] * 2 and whole.usage.completion_tokens == 8
    stream = client.chat.completions.create(messages=begun, extra_body={**more, "echo": True}, stream=True, **kwargs)
    assert "".join(c.choices[0].delta.content or "" for c in stream) == "A bird is" + plain
    parts = HELLO + [{"role": "assistant", "content": [{"type": "text", "text": t} for t in ("A bird", "is")]}]
    for x in (more, {}):  # continued, or a turn of its own
        plain, whole = [client.chat.completions.create(messages=parts, extra_body={**x, **y}, **kwargs).choices[0].message.content
                        for y in ({}, {"echo": True})]
        assert whole == "A bird\nis" + plain
    same = [client.chat.completions.create(messages=HELLO, extra_body=x, **kwargs).choices[0].message.content for x in ({}, {"echo": True})]
    assert same[0] == same[1]


def test_ids_of_a_prompt_stand_where_vllm_has_them(client):
    ask = dict(model="tiny", messages=HELLO, max_tokens=3, temperature=0, extra_body={"return_token_ids": True})
    r = client.chat.completions.create(n=2, **ask)
    assert len(r.prompt_token_ids) == r.usage.prompt_tokens and r.prompt_token_ids == r.choices[0].prompt_token_ids
    chunks = list(client.chat.completions.create(n=2, stream=True, **ask))
    assert [c.prompt_token_ids for c in chunks if hasattr(c, "prompt_token_ids")] == [r.prompt_token_ids]
    for i in range(2):
        assert sum([c.choices[0].token_ids for c in chunks if c.choices[0].index == i and hasattr(c.choices[0], "token_ids")], []) == r.choices[i].token_ids


def test_parts_that_are_text_by_other_names(server, client):
    """An assistant's refusal in a history, and what comes from the Responses."""
    def prompt(content):
        return server.post("/apply-template", {"messages": HELLO + [{"role": "assistant", "content": content}] + HELLO})[1]["prompt"]
    want = prompt("I can't.")
    for part in ({"type": "text", "text": "I can't."}, {"type": "refusal", "refusal": "I can't."}, {"type": "output_text", "text": "I can't."},
                 {"type": "input_text", "text": "I can't."}):
        assert prompt([part]) == want
    with pytest.raises(openai.BadRequestError, match="refusal"):
        client.chat.completions.create(model="tiny", messages=[{"role": "assistant", "content": [{"type": "refusal", "text": "x"}]}])
    with pytest.raises(openai.BadRequestError, match="image_url"):
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}])


def test_bad_words_behind_a_space():
    """They may be other tokens there, and another number of them."""
    import os
    from harness import ROOT, Server
    with Server(os.path.join(ROOT, "demo", "model"), {}, ["--threads", "2"], name="demo") as s:
        ask = {"messages": [{"role": "user", "content": "What is the capital of Germany?"}], "max_tokens": 12, "temperature": 0}
        counts = [s.post("/tokenize", {"content": x})[1]["count"] for x in ("capital of", " capital of")]
        assert counts[0] != counts[1]
        for words, gone in (([], None), (["capital of"], "capital of"), (["Berlin"], "Berlin"), (["capital of", "Die"], "capital of")):
            text = s.post("/v1/chat/completions", {**ask, "bad_words": words})[1]["choices"][0]["message"]["content"]
            assert "capital of Germany is Berlin" in text if not words else gone not in text


def test_a_prompt_above_the_context_is_refused(client):
    with pytest.raises(openai.BadRequestError) as e:
        client.completions.create(model="tiny", prompt=[5] * 600, max_tokens=5)
    assert "512" in e.value.body["message"]


def test_closing_a_stream_cancels_the_generation(client, server):
    stream = client.completions.create(model="tiny", prompt="x", max_tokens=400, temperature=0, stream=True,
                                       extra_body={"ignore_eos": True})
    next(iter(stream))
    stream.close()
    again = client.completions.create(model="shows_A", prompt="x", max_tokens=3, temperature=0)
    assert again.choices[0].text == "AAA"
