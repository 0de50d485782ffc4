"""OpenAI's Responses with the real `openai` package: stateless, streamed, kept."""
import json
import os
from typing import Literal

import openai
import pydantic
import pytest

import parrot
from harness import Server
from conftest import LLAMA, VOICES

HELLO = [{"role": "user", "content": "Hello, bird!"}]


def test_text_is_what_chat_says(client):
    r = client.responses.create(model="qv_r4", input="Hello, bird!", max_output_tokens=20, temperature=0)
    chat = client.chat.completions.create(model="qv_r4", messages=HELLO, max_tokens=20, temperature=0)
    assert r.output_text == chat.choices[0].message.content and r.object == "response" and r.model == "qv_r4"
    assert r.status == {"stop": "completed", "length": "incomplete"}[chat.choices[0].finish_reason]
    assert r.usage.input_tokens == chat.usage.prompt_tokens and r.usage.output_tokens == chat.usage.completion_tokens
    assert r.usage.total_tokens == chat.usage.total_tokens
    assert r.output[0].type == "message" and r.output[0].role == "assistant"
    assert r.max_output_tokens == 20 and r.temperature == 0 and r.error is None and r.instructions is None


def test_instructions_and_items_become_messages(client):
    r = client.responses.create(
        model="tiny", instructions="Be a bird.", max_output_tokens=8, temperature=0, store=False,
        input=[{"role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
               {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]},
               {"role": "user", "content": "Who?"}])
    chat = client.chat.completions.create(model="tiny", max_tokens=8, temperature=0, messages=[
        {"role": "system", "content": "Be a bird."}, {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Who?"}])
    assert r.output_text == chat.choices[0].message.content and r.usage.input_tokens == chat.usage.prompt_tokens
    assert r.instructions == "Be a bird."


def test_the_stream_builds_the_same_response(client):
    ask = {"model": "shows_A", "input": "Hello", "max_output_tokens": 5, "extra_body": {"ignore_eos": True}}
    whole = client.responses.create(**ask)
    events = list(client.responses.create(**ask, stream=True))
    assert [e.sequence_number for e in events] == list(range(len(events)))
    names = [e.type for e in events]
    assert names[:4] == ["response.created", "response.in_progress", "response.output_item.added",
                         "response.content_part.added"]
    assert names[-4:] == ["response.output_text.done", "response.content_part.done", "response.output_item.done",
                          "response.incomplete"]
    assert set(names[4:-4]) == {"response.output_text.delta"}
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == whole.output_text == "AAAAA"
    last = events[-1].response
    assert last.output_text == "AAAAA" and last.status == "incomplete"
    assert last.incomplete_details.reason == "max_output_tokens" and last.usage.output_tokens == 5
    assert {e.item_id for e in events if hasattr(e, "item_id")} == {last.output[0].id}
    assert events[0].response.id == last.id and events[0].response.status == "in_progress"


def test_the_packages_own_stream_helper(client):
    ask = {"model": "shows_A", "input": "Hello", "max_output_tokens": 9, "extra_body": {"stop": ["AAAA"]}}
    with client.responses.stream(**ask) as stream:
        text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
        final = stream.get_final_response()
    whole = client.responses.create(**ask)
    assert final.status == whole.status == "completed" and final.output_text == whole.output_text == text


class Bird(pydantic.BaseModel):
    voice: Literal["pt", "de"]
    sings: bool


def test_structured_answers_are_parsed(client):
    r = client.responses.parse(model="tiny", input="Which bird?", text_format=Bird, max_output_tokens=100, temperature=0)
    assert r.status == "completed" and isinstance(r.output_parsed, Bird)
    assert r.text.format.type == "json_schema"
    plain = client.responses.create(model="tiny", input="x", text={"format": {"type": "json_object"}}, max_output_tokens=3)
    assert plain.output_text.lstrip().startswith("{")


def test_log_probabilities(client):
    r = client.responses.create(model="qv_r4", input="Hello", max_output_tokens=4, temperature=0, top_logprobs=2,
                                include=["message.output_text.logprobs"])
    probs = r.output[0].content[0].logprobs
    assert len(probs) == r.usage.output_tokens and len(probs[0].top_logprobs) == 2
    events = list(client.responses.create(model="qv_r4", input="Hello", max_output_tokens=4, temperature=0, top_logprobs=2,
                                          stream=True))
    seen = [p for e in events if e.type == "response.output_text.delta" for p in e.logprobs]
    assert [p.token for p in seen] == [p.token for p in probs]
    assert [p.logprob for p in seen] == [p.logprob for p in probs]


def test_conversations_go_on_from_what_is_kept(client):
    one = client.responses.create(model="qv_r4", input="Hello", instructions="Only here.", max_output_tokens=6, temperature=0)
    two = client.responses.create(model="qv_r4", input="And?", previous_response_id=one.id, max_output_tokens=6,
                                  temperature=0)
    chat = client.chat.completions.create(model="qv_r4", max_tokens=6, temperature=0, messages=[
        {"role": "user", "content": "Hello"}, {"role": "assistant", "content": one.output_text},
        {"role": "user", "content": "And?"}])
    assert two.output_text == chat.choices[0].message.content and two.previous_response_id == one.id
    three = client.responses.create(model="qv_r4", input="So?", previous_response_id=two.id, max_output_tokens=1)
    assert three.usage.input_tokens > two.usage.input_tokens
    kept = client.responses.retrieve(two.id)
    assert kept.output_text == two.output_text and kept.usage == two.usage
    items = client.responses.input_items.list(two.id)
    assert [i.type for i in items.data] == ["message", "message", "message"]
    assert [(i.role, i.content[0].type, i.content[0].text) for i in items.data] == [  # the newest first, as OpenAI has it
        ("user", "input_text", "And?"), ("assistant", "output_text", one.output_text), ("user", "input_text", "Hello")]
    assert len({i.id for i in items.data}) == 3 and not items.has_more
    client.responses.delete(two.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(two.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="qv_r4", input="x", previous_response_id=two.id)
    assert client.responses.retrieve(one.id).id == one.id


def test_what_was_read_is_listed_in_pages(client):
    said = [{"role": ("user", "assistant")[i % 2], "content": f"number {i}"} for i in range(7)]
    one = client.responses.create(model="qv_r4", input=said, max_output_tokens=1)
    texts = lambda page: [i.content[0].text for i in page]
    assert texts(client.responses.input_items.list(one.id, order="asc")) == [m["content"] for m in said]
    first = client.responses.input_items.list(one.id, limit=3)
    assert texts(first.data) == ["number 6", "number 5", "number 4"] and first.has_more and first.last_id == first.data[-1].id
    rest = client.responses.input_items.list(one.id, limit=3, after=first.last_id)
    assert texts(rest.data) == ["number 3", "number 2", "number 1"] and rest.has_more
    assert texts(client.responses.input_items.list(one.id, limit=2)) == [f"number {i}" for i in range(6, -1, -1)]  # page after page
    whole = client.responses.create(model="qv_r4", input=said[:3], max_output_tokens=4, temperature=0)
    named = client.responses.create(model="qv_r4", input=[{"type": "item_reference", "id": i.id} for i in client.responses.input_items.list(
        one.id, order="asc", limit=3).data], max_output_tokens=4, temperature=0)
    assert named.output_text == whole.output_text and named.usage.input_tokens == whole.usage.input_tokens
    for field, value in (("order", "up"), ("limit", 0), ("limit", 101), ("limit", "x"), ("after", "nothing")):
        with pytest.raises(openai.BadRequestError, match=field):
            client.responses.input_items.list(one.id, extra_query={field: value})
    ids = [i.id for i in client.responses.input_items.list(one.id, order="asc")]
    mixed = [ids[0], client.responses.input_items.list(named.id).data[0].id, ids[1], ids[0]]  # of two responses, by turns
    again = client.responses.create(model="qv_r4", input=[{"id": i} for i in mixed], max_output_tokens=1)
    assert texts(client.responses.input_items.list(again.id, order="asc")) == ["number 0", "number 2", "number 1", "number 0"]
    place = ids[3].index("_in") + 3
    assert ids[3][place:] == "3" and ids[3].startswith("msg_")
    for wrong in (first.last_id[:-1] + "99", first.last_id + "x", "fc" + ids[3][3:], "rs" + ids[3][3:],
                  *(ids[3][:place] + n for n in ("+3", "03", " 3", "-3", "", "18446744073709551619"))):
        with pytest.raises(openai.NotFoundError):
            client.responses.create(model="qv_r4", input=[{"id": wrong}])


def test_a_kept_text_may_have_any_character(tmp_path):
    texts = {"plain": "one\0two", "call": '<tool_call>\n{"name": "now", "arguments": {"zone": "a\\u0000b"}}\n</tool_call>', "after": "Yes."}
    with Server(parrot.make(str(tmp_path / "model"), texts), {}, ["--threads", "1"], name="parrot") as s:
        bird = openai.OpenAI(base_url=s.url + "/v1", api_key="none", max_retries=0)
        one = bird.responses.create(model="parrot", input="#plain")
        assert one.output_text == "one\0two" == bird.responses.retrieve(one.id).output_text
        two = bird.responses.create(model="parrot", input="#plain", previous_response_id=one.id)
        cut = [{"role": "user", "content": "#plain"}, {"role": "assistant", "content": "one"}, {"role": "user", "content": "#plain"}]
        behind = two.usage.input_tokens - bird.responses.create(model="parrot", input=cut).usage.input_tokens
        assert two.output_text == "one\0two" and behind == len("\0two")  # a token for each byte
        tool = {"type": "function", "name": "now", "strict": False, "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}}}
        call = bird.responses.create(model="parrot", input="#call", tools=[tool])
        assert json.loads(call.output[0].arguments) == {"zone": "a\0b"}
        said = {"type": "function_call_output", "call_id": call.output[0].call_id, "output": "12"}
        assert bird.responses.create(model="parrot", input=[said], tools=[tool], previous_response_id=call.id).output_text == "Yes."
        ask = {"model": "parrot", "messages": [{"role": "user", "content": "#call"}], "max_tokens": 50, "stream": False}
        anthropic = s.post("/v1/messages", {**ask, "tools": [{"name": "now", "input_schema": tool["parameters"]}]})[1]
        assert anthropic["content"][0]["input"] == {"zone": "a\0b"}
        ollama = s.post("/api/chat", {**ask, "tools": [{"type": "function", "function": {"name": "now", "parameters": tool["parameters"]}}]})[1]
        assert ollama["message"]["tool_calls"][0]["function"]["arguments"] == {"zone": "a\0b"}


def test_streams_are_kept_and_what_isnt_asked_isnt(client):
    events = list(client.responses.create(model="shows_A", input="Hello", max_output_tokens=3, stream=True,
                                          extra_body={"ignore_eos": True}))
    assert client.responses.retrieve(events[-1].response.id).output_text == "AAA"
    r = client.responses.create(model="shows_A", input="Hello", max_output_tokens=3, store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(r.id)


def test_items_of_kept_responses_may_be_named(server, client):
    ask = dict(model="qv_r4", max_output_tokens=6, temperature=0)
    one = client.responses.create(input="Hello", **ask)
    whole = client.responses.create(input=[HELLO[0], one.output[0].model_dump(), {"role": "user", "content": "And?"}], **ask)
    for reference in ({"type": "item_reference", "id": one.output[0].id}, {"id": one.output[0].id}):
        two = client.responses.create(input=[HELLO[0], reference, {"role": "user", "content": "And?"}], **ask)
        assert two.output_text == whole.output_text and two.usage.input_tokens == whole.usage.input_tokens
    assert client.responses.input_items.list(two.id).data[1].content[0].text == one.output_text  # kept as the item itself
    other = openai.OpenAI(base_url=server.url + "/v1", api_key="another", max_retries=0)
    gone = one.output[0].id[:-1] + "7"
    for who, item in ((other, one.output[0].id), (client, gone), (client, "msg_" + "0" * 48 + "_0")):
        with pytest.raises(openai.NotFoundError) as e:
            who.responses.create(input=[{"type": "item_reference", "id": item}], **ask)
        assert item in e.value.body["message"]


def test_truncation(server):
    turns = [t for i in range(60) for t in ({"role": "user", "content": f"Question {i} of a long talk?"}, {"role": "assistant", "content": f"Answer {i}."})]
    count = lambda items, **more: server.post("/v1/responses/input_tokens", {"model": "tiny", "instructions": "Be a bird.", "input": items, **more})
    context = server.get("/props")[1]["default_generation_settings"]["n_ctx"]
    while count(turns)[0] == 200:
        turns *= 2
    turns.append({"role": "user", "content": "And now?"})
    status, answer = server.post("/v1/responses", {"model": "tiny", "input": turns, "instructions": "Be a bird.", "max_output_tokens": 5})
    assert status == 400 and answer["error"]["code"] == "context_length_exceeded"
    status, answer = server.post("/v1/responses", {"model": "tiny", "input": turns, "instructions": "Be a bird.", "max_output_tokens": 5, "truncation": "auto"})
    assert status == 200 and answer["truncation"] == "auto"
    n = answer["usage"]["input_tokens"]
    fitting = [k for k in range(1, len(turns), 2) if count(turns[-k:])[1].get("input_tokens", context) <= context - 5]
    assert n == count(turns[-fitting[-1]:])[1]["input_tokens"] and context - 60 < n <= context - 5  # as many turns as there is room for
    short = server.post("/v1/responses/input_tokens", {"model": "tiny", "input": turns[-1:], "truncation": "auto"})
    assert short == server.post("/v1/responses/input_tokens", {"model": "tiny", "input": turns[-1:]})
    status, answer = server.post("/v1/responses", {"model": "tiny", "input": "x " * context, "truncation": "auto"})
    assert status == 400 and answer["error"]["code"] == "context_length_exceeded"
    assert server.post("/v1/responses", {"model": "tiny", "input": "x", "truncation": "middle"})[0] == 400


def test_nobody_else_sees_them(server, client):
    r = client.responses.create(model="shows_A", input="Hello", max_output_tokens=3)
    other = openai.OpenAI(base_url=server.url + "/v1", api_key="another", max_retries=0)
    with pytest.raises(openai.NotFoundError):
        other.responses.retrieve(r.id)
    with pytest.raises(openai.NotFoundError):
        other.responses.create(model="shows_A", input="x", previous_response_id=r.id)
    with pytest.raises(openai.NotFoundError):
        other.responses.delete(r.id)
    assert client.responses.retrieve(r.id).output_text == r.output_text


def test_they_outlive_the_server_with_a_state(tmp_path):
    state = ["--state", str(tmp_path / "state")]
    with Server(LLAMA, {"qv_r4": VOICES["qv_r4"]}, state, name="tiny") as s:
        status, one = s.post("/v1/responses", {"model": "qv_r4", "input": "Hello", "max_output_tokens": 4})
        assert status == 200
    assert os.stat(tmp_path / "state.responses").st_mode & 0o077 == 0
    with Server(LLAMA, {"qv_r4": VOICES["qv_r4"]}, state, name="tiny") as s:
        assert s.get("/v1/responses/" + one["id"]) == (200, one)


def test_counts(server):
    status, r = server.post("/v1/responses/input_tokens", {"model": "tiny", "input": "Hello, bird!"})
    assert status == 200 and r["object"] == "response.input_tokens"
    status, c = server.post("/v1/chat/completions/input_tokens", {"model": "tiny", "messages": HELLO})
    assert status == 200 and c["input_tokens"] == r["input_tokens"] > 3
    assert server.post("/v1/responses/input_tokens", {"model": "nobody", "input": "x"})[0] == 404


@pytest.mark.parametrize("body, named", [
    ({"input": None}, "input"),
    ({"input": []}, "input"),
    ({"input": 3}, "input"),
    ({"input": [{"type": "item_reference", "id": "x"}]}, "item_reference"),
    ({"input": [{"id": "msg_x_1"}] * 1001}, "at most 1000"),
    ({"input": [{"role": "bird", "content": "x"}]}, "input[0].role"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input_image"),
    ({"input": [{"type": "function_call", "call_id": "a", "name": "f"}]}, "arguments"),
    ({"input": [{"type": "function_call_output", "output": "x"}]}, "call_id"),
    ({"tools": [{"type": "web_search"}]}, "web_search"),
    ({"tool_choice": {"type": "file_search"}}, "file_search"),
    ({"background": True}, "background"),
    ({"conversation": "c"}, "conversation"),
    ({"prompt": {"id": "p"}}, "prompt"),
    ({"max_output_tokens": 0}, "max_"),
    ({"temperature": -1}, "temperature"),
    ({"store": "yes"}, "store"),
    ({"n": 2}, "n"),
    ({"n_cmpl": 2}, "n_cmpl"),
])
def test_what_is_wrong_is_named(server, body, named):
    body = {k: v for k, v in {"model": "tiny", "input": "x", "max_output_tokens": 2, **body}.items() if v is not None}
    status, answer = server.post("/v1/responses", body)
    assert status == 400 and named in answer["error"]["message"]


def test_past_calls_reach_the_template(server):
    calls = [{"role": "user", "content": "Weather?"},
             {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
             {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{\"at\": \"Rio\"}"},
             {"type": "function_call_output", "call_id": "c1", "output": "sun"}]
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{\"at\": \"Rio\"}"}}
    same = [{"role": "user", "content": "Weather?"}, {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "sun"}]
    status, a = server.post("/v1/responses/input_tokens", {"model": "tiny", "input": calls})
    assert status == 200, a
    assert a["input_tokens"] == server.post("/v1/chat/completions/input_tokens",
                                            {"model": "tiny", "messages": same})[1]["input_tokens"]
