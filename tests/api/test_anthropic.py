"""The real `anthropic` package, unchanged but for its base URL."""
import json
from typing import Literal

import anthropic
import pydantic
import pytest

HELLO = [{"role": "user", "content": "Hello, bird!"}]


@pytest.fixture(scope="module")
def claude(server):
    return anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0)


def events(server, body):
    """The stream as it is on the wire: (event, data) in order."""
    import urllib.request
    request = urllib.request.Request(server.url + "/v1/messages", json.dumps({**body, "stream": True}).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        assert reply.headers["Content-Type"] == "text/event-stream"
        frames = reply.read().decode().strip().split("\n\n")
    lines = [f.split("\n") for f in frames if f.startswith("event: ")]
    return [(a[len("event: "):], json.loads(b[len("data: "):])) for a, b in lines]


def test_a_message_is_what_chat_says(claude, client):
    m = claude.messages.create(model="qv_r4", max_tokens=20, messages=HELLO, extra_body={"temperature": 0})
    chat = client.chat.completions.create(model="qv_r4", max_tokens=20, temperature=0, messages=HELLO)
    assert m.type == "message" and m.role == "assistant" and m.model == "qv_r4" and m.id.startswith("msg_")
    assert [b.type for b in m.content] == ["text"] and m.content[0].text == chat.choices[0].message.content
    assert m.usage.input_tokens + m.usage.cache_read_input_tokens == chat.usage.prompt_tokens
    assert m.usage.output_tokens == chat.usage.completion_tokens
    assert m.stop_reason == {"stop": "end_turn", "length": "max_tokens"}[chat.choices[0].finish_reason]
    assert m.stop_sequence is None


def test_the_stream_builds_the_same_message(claude):
    ask = {"model": "shows_A", "max_tokens": 6, "messages": HELLO, "extra_body": {"ignore_eos": True, "temperature": 0}}
    whole = claude.messages.create(**ask)
    assert whole.content[0].text == "AAAAAA" and whole.stop_reason == "max_tokens"
    with claude.messages.stream(**ask) as stream:
        assert "".join(stream.text_stream) == "AAAAAA"
        final = stream.get_final_message()
    assert [b.text for b in final.content] == ["AAAAAA"] and final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens == 6


def test_events_on_the_wire(server):
    seen = events(server, {"model": "shows_A", "max_tokens": 3, "messages": HELLO, "ignore_eos": True})
    names = [n for n, _ in seen]
    assert names[:2] == ["message_start", "content_block_start"]
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(names[2:-3]) == {"content_block_delta"}
    assert all(n == d["type"] for n, d in seen)
    start = seen[0][1]["message"]
    assert start["content"] == [] and start["stop_reason"] is None and start["usage"]["input_tokens"] > 0
    assert seen[1][1] == {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    assert seen[2][1]["delta"]["type"] == "text_delta" and seen[2][1]["index"] == 0
    assert seen[-2][1]["delta"] == {"stop_reason": "max_tokens", "stop_sequence": None}
    assert seen[-2][1]["usage"]["output_tokens"] == 3


def test_stop_sequence_is_named(claude):
    m = claude.messages.create(model="shows_A", max_tokens=9, messages=HELLO, stop_sequences=["zzz", "AA"])
    assert m.stop_reason == "stop_sequence" and m.stop_sequence == "AA" and "AA" not in m.content[0].text


def prompt_of(server, messages, **more):
    status, answer = server.post("/apply-template", {"messages": messages, **more})
    assert status == 200, answer
    return answer["prompt"]


def count(server, body):
    status, answer = server.post("/v1/messages/count_tokens", {"model": "tiny", **body})
    assert status == 200, answer
    return answer["input_tokens"]


def tokens(server, text):
    return len(server.post("/tokenize", {"content": text})[1]["tokens"])


def test_system_blocks_and_turns_become_the_prompt(server, claude):
    body = {"system": [{"type": "text", "text": "x-anthropic-billing-header: cch=1;"},
                       {"type": "text", "text": "You are a bird.", "cache_control": {"type": "ephemeral"}}],
            "messages": [{"role": "user", "content": "Hello"},
                         {"role": "user", "content": [{"type": "text", "text": "there"}]},
                         {"role": "assistant", "content": "Hi"},
                         {"role": "user", "content": "Who are you?"}]}
    same = [{"role": "system", "content": "You are a bird."}, {"role": "user", "content": "Hello\nthere"},
            {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Who are you?"}]
    wanted = tokens(server, prompt_of(server, same))
    assert count(server, body) == wanted
    assert claude.messages.count_tokens(model="qv_r4", **body).input_tokens == wanted
    m = claude.messages.create(model="tiny", max_tokens=1, **body)
    assert m.usage.input_tokens + m.usage.cache_read_input_tokens == wanted


def test_a_last_turn_of_the_assistant_is_continued(server):
    begun = HELLO + [{"role": "assistant", "content": "I am a"}]
    same = prompt_of(server, begun, continue_final_message=True, add_generation_prompt=False)
    assert count(server, {"messages": begun}) == tokens(server, same)


def test_voices_and_additions_have_their_names_here_too(server):
    ask = {"model": "tiny", "max_tokens": 3, "messages": HELLO, "ignore_eos": True}
    status, m = server.post("/v1/messages", {**ask, "adapters": [{"name": "shows_A"}]})
    assert status == 200 and m["content"][0]["text"] == "AAA"
    status, m = server.post("/v1/messages", ask, headers={"X-Adapter": "shows_A"})
    assert status == 200 and m["content"][0]["text"] == "AAA"


class Bird(pydantic.BaseModel):
    voice: Literal["pt", "de"]
    sings: bool


def test_structured_answers_are_parsed(claude):
    m = claude.messages.parse(model="tiny", max_tokens=100, messages=HELLO, output_format=Bird, extra_body={"temperature": 0})
    assert isinstance(m.parsed_output, Bird) and m.stop_reason == "end_turn"


def test_an_unknown_voice_is_not_found(claude):
    with pytest.raises(anthropic.NotFoundError) as e:
        claude.messages.create(model="nobody", max_tokens=3, messages=HELLO)
    assert e.value.body["type"] == "error" and e.value.body["error"]["type"] == "not_found_error"
    assert "nobody" in e.value.body["error"]["message"]


def blocks(*content, role="user"):
    return {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"},
                         {"role": role, "content": list(content)}]}


@pytest.mark.parametrize("body, named", [
    ({"max_tokens": None}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"messages": []}, "messages: found none"),
    ({"messages": None}, "messages"),
    ({"messages": [{"role": "system", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
    (blocks({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}), "image"),
    (blocks({"type": "document", "source": {}}), "document"),
    (blocks({"type": "thinking", "thinking": "x"}), "thinking"),
    (blocks({"text": "x"}), "type"),
    (blocks({"type": "text", "text": 3}), "text"),
    (blocks({"type": "tool_result", "content": "x"}), "tool_use_id"),
    (blocks({"type": "tool_result", "tool_use_id": "a", "content": [{"type": "image"}]}), "image"),
    (blocks({"type": "tool_use", "id": "a", "name": "f", "input": "{}"}, role="assistant"), "input"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "web_search_20250305"),
    ({"tools": [{"name": "f"}]}, "input_schema"),
    ({"tool_choice": {"type": "some"}}, "tool_choice"),
    ({"thinking": {"type": "perhaps"}}, "thinking"),
    ({"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
    ({"n": 2}, "n"),
    ({"n_cmpl": 2}, "n_cmpl"),
    ({"top_p": 2}, "top_p"),
    ({"system": 3, }, "system"),
])
def test_what_is_wrong_is_named(server, body, named):
    body = {k: v for k, v in {"model": "tiny", "max_tokens": 3, "messages": HELLO, **body}.items() if v is not None}
    status, answer = server.post("/v1/messages", body)
    assert status == 400 and answer["type"] == "error" and answer["error"]["type"] == "invalid_request_error"
    assert named in answer["error"]["message"]


def test_past_calls_reach_the_template(server):
    """As the same conversation in OpenAI's form."""
    body = {"messages": [{"role": "user", "content": "Weather?"},
                         {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": ""},
                                                           {"type": "text", "text": "I look."},
                                                           {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "Rio"}}]},
                         {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1",
                                                       "content": [{"type": "text", "text": "sun"}]},
                                                      {"type": "text", "text": "So?"}]}]}
    call = {"id": "t1", "type": "function", "function": {"name": "look", "arguments": "{\"at\": \"Rio\"}"}}
    same = [{"role": "user", "content": "Weather?"}, {"role": "assistant", "content": "I look.", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "t1", "content": "sun"}, {"role": "user", "content": "So?"}]
    prompt = prompt_of(server, same)
    assert '"name": "look"' in prompt and "sun" in prompt and count(server, body) == tokens(server, prompt)


def test_models_are_listed(claude):
    models = {m.id: m for m in claude.models.list()}
    assert {"tiny", "qv_r4"} <= set(models) and models["qv_r4"].type == "model" and models["qv_r4"].display_name == "qv_r4"
    assert models["qv_r4"].created_at.year >= 2025 and claude.models.retrieve("qv_r4").id == "qv_r4"


def test_errors_of_the_path_have_their_form(server):
    status, answer = server.get("/v1/messages")
    assert status == 405 and answer["type"] == "error"
    status, answer = server.post("/v1/messages", [1])
    assert status == 400 and answer["error"]["type"] == "invalid_request_error"
