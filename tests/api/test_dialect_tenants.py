"""Tenants in the other APIs: keys as their clients send them, names of voices, limits and kept responses of one's own."""
import json, os

import anthropic
import ollama
import openai
import pytest

from conftest import ADAPTERS, LLAMA
from harness import Server

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    state = str(tmp_path_factory.mktemp("state") / "state")
    with Server(LLAMA, {f"shows_{x}": os.path.join(ADAPTERS, f"shows_{x}") for x in "AB"}, ["--threads", "2", "--state", state],
                name="tiny") as s:
        keys = {}
        for name, settings in (("red", {"voices": ["shows_A"], "aliases": {"assistant": "shows_A"}}),
                               ("blue", {"voices": ["shows_B"], "aliases": {"assistant": "shows_B"}}),
                               ("few", {"voices": ["*"], "requests_per_minute": 2}),
                               ("short", {"voices": ["*"], "tokens_per_minute": 60})):
            status, answer, _ = s.admin("PUT", f"/admin/v1/tenants/{name}", settings)
            assert status in (200, 201), answer
            status, answer, _ = s.admin("POST", "/admin/v1/keys", {"tenant": name, "name": "first"})
            assert status == 201, answer
            keys[name] = answer["key"]
        yield s, keys


def test_the_same_name_is_everybodys_own_voice(served):
    s, keys = served
    for who, letter in (("red", "A"), ("blue", "B")):
        m = anthropic.Anthropic(base_url=s.url, api_key=keys[who], max_retries=0).messages.create(
            model="assistant", max_tokens=3, messages=HELLO, extra_body={"ignore_eos": True})
        assert m.content[0].text == 3 * letter
        llama = ollama.Client(host=s.url, headers={"Authorization": "Bearer " + keys[who]})
        assert llama.chat(model="assistant:latest", messages=HELLO, options={"num_predict": 3}).message.content[:1] == letter
        bird = openai.OpenAI(base_url=s.url + "/v1", api_key=keys[who], max_retries=0)
        assert bird.responses.create(model="assistant", input="x", max_output_tokens=1).output_text == letter
        assert len(bird.embeddings.create(model="assistant", input="x").data[0].embedding) == 32


def test_anothers_voice_is_not_found(served):
    s, keys = served
    texts = []
    for voice in ("shows_B", "nobody_"):
        with pytest.raises(anthropic.NotFoundError) as e:
            anthropic.Anthropic(base_url=s.url, api_key=keys["red"], max_retries=0).messages.create(
                model=voice, max_tokens=3, messages=HELLO)
        texts.append(e.value.body["error"]["message"].replace(voice, "?"))
        status, answer = s.post("/api/chat", {"model": voice, "messages": HELLO}, headers={"Authorization": "Bearer " + keys["red"]})
        assert status == 404 and set(answer) == {"error"}
    assert texts[0] == texts[1]


def test_no_key_and_no_more_requests_are_said_in_each_form(served):
    s, keys = served
    with pytest.raises(anthropic.AuthenticationError) as e:
        anthropic.Anthropic(base_url=s.url, api_key="lk_wrong", max_retries=0).messages.create(model="x", max_tokens=3, messages=HELLO)
    assert e.value.body["error"]["type"] == "authentication_error"
    assert s.post("/api/chat", {"messages": HELLO})[0] == 401 and s.get("/api/tags")[0] == 401
    assert s.get("/") == (200, "Lorikeet is running")
    claude = anthropic.Anthropic(base_url=s.url, api_key=keys["few"], max_retries=0)
    for _ in range(2):
        claude.messages.create(model="tiny", max_tokens=1, messages=HELLO)
    with pytest.raises(anthropic.RateLimitError) as e:
        claude.messages.create(model="tiny", max_tokens=1, messages=HELLO)
    assert e.value.body["error"]["type"] == "rate_limit_error" and int(e.value.response.headers["retry-after"]) >= 1
    assert s.post("/v1/embeddings", {"input": "x"}, headers={"x-api-key": keys["few"]})[0] == 429


def test_a_count_costs_no_tokens_and_a_vector_its_prompt(served):
    s, keys = served
    key = {"x-api-key": keys["short"]}
    for _ in range(3):
        assert s.post("/v1/messages/count_tokens", {"model": "tiny", "messages": HELLO}, headers=key)[0] == 200
    status, answer = s.post("/v1/embeddings", {"model": "tiny", "input": [[7] * 40]}, headers=key)
    assert status == 200 and answer["usage"]["total_tokens"] == 40
    assert s.post("/v1/embeddings", {"model": "tiny", "input": [[7] * 40]}, headers=key)[0] == 429
    assert s.post("/v1/embeddings", {"model": "tiny", "input": [[7] * 10]}, headers=key)[0] == 200


def test_kept_responses_are_the_tenants(served):
    s, keys = served
    birds = {w: openai.OpenAI(base_url=s.url + "/v1", api_key=keys[w], max_retries=0) for w in ("red", "blue")}
    r = birds["red"].responses.create(model="assistant", input="x", max_output_tokens=1)
    status, answer, _ = s.admin("POST", "/admin/v1/keys", {"tenant": "red", "name": "second"})
    second = openai.OpenAI(base_url=s.url + "/v1", api_key=answer["key"], max_retries=0)
    assert second.responses.retrieve(r.id).output_text == "A"  # a rotated key finds them
    with pytest.raises(openai.NotFoundError):
        birds["blue"].responses.retrieve(r.id)
    with pytest.raises(openai.NotFoundError):
        birds["blue"].responses.create(model="assistant", input="x", previous_response_id=r.id)
