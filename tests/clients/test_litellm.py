"""LiteLLM through three of our APIs: OpenAI's, Anthropic's, Ollama's."""
import json
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "true"
import litellm
import pytest

from conftest import TEXTS

litellm.telemetry = False
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}}}]


def where(server, api):
    return {"openai": {"model": "openai/parrot", "api_base": server.url + "/v1", "api_key": "none"},
            "anthropic": {"model": "anthropic/parrot", "api_base": server.url, "api_key": "none"},
            "ollama_chat": {"model": "ollama_chat/parrot", "api_base": server.url}}[api]


def ask(server, api, cue, **more):
    return litellm.completion(messages=[{"role": "user", "content": "Please #" + cue}], max_tokens=200, temperature=0, **where(server, api), **more)


@pytest.mark.parametrize("api", ["openai", "anthropic", "ollama_chat"])
def test_a_chat_and_its_stream(bird, api):
    r = ask(bird, api, "plain")
    assert r.choices[0].message.content.strip() == TEXTS["plain"].strip() and r.choices[0].finish_reason == "stop"
    assert r.usage.completion_tokens > 3 and r.usage.prompt_tokens > 3
    chunks = list(ask(bird, api, "plain", stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks).strip() == TEXTS["plain"].strip()


@pytest.mark.parametrize("api", ["openai", "anthropic", "ollama_chat"])
def test_a_tool_is_called(bird, api):
    message = ask(bird, api, "weather", tools=TOOLS).choices[0].message
    assert [(c.function.name, json.loads(c.function.arguments)) for c in message.tool_calls] == [("get_weather", {"city": "São Paulo", "days": 2})]


def test_voices_and_embeddings(voices):
    for voice, shown in (("shows_A", "shows_A"), ("tiny", "tiny")):
        r = litellm.completion(model="openai/" + voice, api_base=voices.url + "/v1", api_key="none", max_tokens=2,
                               messages=[{"role": "user", "content": "Hello"}])
        assert r.model.endswith(shown)
    r = litellm.embedding(model="openai/qv_r4", api_base=voices.url + "/v1", api_key="none", input=["a bird", "a bicycle"])
    assert len(r.data) == 2 and abs(sum(x * x for x in r.data[0]["embedding"]) - 1) < 1e-3


def test_an_unknown_voice_is_an_error(voices):
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(model="openai/nobody", api_base=voices.url + "/v1", api_key="none", messages=[{"role": "user", "content": "Hello"}])
