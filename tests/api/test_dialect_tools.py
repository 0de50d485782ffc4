"""Calls of tools and reasoning in Anthropic's, Ollama's and the Responses' words, on a model that says given texts by heart
(parrot.py); and what their clients send, replayed from tests/api/requests_other: MODEL stands for the model's name."""
import glob, json, os, urllib.request

import anthropic
import ollama
import openai
import pydantic
import pytest

import parrot
from harness import Server
from test_openai_tools import TEXTS

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}
WANTED = {"city": "São Paulo", "days": 2}
NOTHING = {"type": "object", "properties": {}}
FILES = sorted(glob.glob(os.path.join(os.path.dirname(os.path.abspath(__file__)), "requests_other", "*.json")))


@pytest.fixture(scope="module")
def parrots(tmp_path_factory):
    model = parrot.make(str(tmp_path_factory.mktemp("parrots") / "model"), TEXTS, template=parrot.HERMES_THINKS)
    with Server(model, {}, ["--threads", "2"], name="parrot") as s:
        yield s


# ---- Anthropic

def claude_asks(cue, **more):
    return {"model": "parrot", "max_tokens": 200, "messages": [{"role": "user", "content": "Please #" + cue}],
            "tools": [{"name": "get_weather", "description": "Weather of a city", "input_schema": SCHEMA},
                      {"name": "now", "input_schema": NOTHING}], **more}


@pytest.fixture(scope="module")
def claude(parrots):
    return anthropic.Anthropic(base_url=parrots.url, api_key="none", max_retries=0)


def test_claude_uses_a_tool_and_hears_of_it(claude):
    m = claude.messages.create(**claude_asks("weather"))
    assert m.stop_reason == "tool_use" and [b.type for b in m.content] == ["tool_use"]
    use = m.content[0]
    assert use.name == "get_weather" and use.input == WANTED
    again = claude_asks("weather")
    again["messages"] += [{"role": "assistant", "content": [b.model_dump() for b in m.content]},
                          {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "21"}]}]
    m = claude.messages.create(**again)
    assert m.stop_reason == "end_turn" and m.content[0].text == TEXTS["after"]


def test_claudes_stream_has_text_and_both_calls(claude):
    whole = claude.messages.create(**claude_asks("both"))
    with claude.messages.stream(**claude_asks("both")) as stream:
        final = stream.get_final_message()
    for m in (whole, final):
        assert [b.type for b in m.content] == ["text", "tool_use", "tool_use"] and m.stop_reason == "tool_use"
        assert m.content[0].text.strip() == "One moment."
        assert [(b.name, b.input) for b in m.content[1:]] == [("now", {}), ("get_weather", {"city": "Rio"})]
    assert len({b.id for b in final.content[1:]}) == 2


def test_claude_thinks_in_a_block(claude):
    whole = claude.messages.create(**claude_asks("think", thinking={"type": "enabled", "budget_tokens": 1024}))
    with claude.messages.stream(**claude_asks("think")) as stream:
        final = stream.get_final_message()
    for m in (whole, final):
        assert [b.type for b in m.content] == ["thinking", "text"]
        assert m.content[0].thinking.strip() == "The bird wonders: <tool?" and m.content[1].text.strip() == "So it says yes."


def test_claudes_tool_choice(claude):
    m = claude.messages.create(**claude_asks("weather", tool_choice={"type": "none"}))
    assert m.stop_reason == "end_turn" and [b.type for b in m.content] == ["text"]
    for choice in ({"type": "any"}, {"type": "tool", "name": "get_weather"}):
        m = claude.messages.create(**claude_asks("weather", tool_choice=choice))
        assert m.stop_reason == "tool_use" and m.content[-1].name == "get_weather" and m.content[-1].input["city"]
    with pytest.raises(anthropic.BadRequestError) as e:
        claude.messages.create(**claude_asks("weather", tool_choice={"type": "tool", "name": "nothing"}))
    assert "nothing" in e.value.body["error"]["message"]


def test_tools_count(claude):
    ask = claude_asks("weather")
    del ask["max_tokens"]
    assert claude.messages.count_tokens(**ask).input_tokens > claude.messages.count_tokens(
        model="parrot", messages=ask["messages"]).input_tokens + 20


# ---- Ollama

def llama_asks(cue, **more):
    return {"model": "parrot", "messages": [{"role": "user", "content": "Please #" + cue}], "options": {"temperature": 0}, "tools": [
        {"type": "function", "function": {"name": n, "description": n, "parameters": p}} for n, p in (("get_weather", SCHEMA), ("now", NOTHING))],
        **more}


@pytest.fixture(scope="module")
def llama(parrots):
    return ollama.Client(host=parrots.url)


def test_ollama_calls_a_tool_and_hears_of_it(llama):
    ask = llama_asks("weather")
    r = llama.chat(**ask)
    assert r.done_reason == "stop" and r.message.content.strip() == ""
    assert [(c.function.name, c.function.arguments) for c in r.message.tool_calls] == [("get_weather", WANTED)]
    ask["messages"] += [r.message, {"role": "tool", "content": "21", "tool_name": "get_weather"}]
    assert llama.chat(**ask).message.content == TEXTS["after"]


def test_ollamas_stream_has_calls_that_are_whole(llama):
    parts = list(llama.chat(**llama_asks("both"), stream=True))
    calls = [c.function for p in parts for c in p.message.tool_calls or []]
    assert [(c.name, c.arguments) for c in calls] == [("now", {}), ("get_weather", {"city": "Rio"})]
    assert "".join(p.message.content for p in parts).strip() == "One moment." and parts[-1].done


def test_ollama_thinks_beside(llama):
    for r in (llama.chat(**llama_asks("think"), think=True), llama.generate(model="parrot", prompt="Please #think", options={"temperature": 0})):
        said = (r.message.content, r.message.thinking) if hasattr(r, "message") else (r.response, r.thinking)
        assert said[0].strip() == "So it says yes." and said[1].strip() == "The bird wonders: <tool?"
    parts = list(llama.chat(**llama_asks("think"), stream=True))
    assert "".join(p.message.thinking or "" for p in parts).strip() == "The bird wonders: <tool?"


def test_ollama_says_what_the_template_can(llama):
    assert {"completion", "tools", "thinking"} == set(llama.show("parrot").capabilities)


# ---- Responses

def responses_asks(cue, **more):
    return {"model": "parrot", "input": "Please #" + cue, "tools": [
        {"type": "function", "name": n, "parameters": p, "strict": False} for n, p in (("get_weather", SCHEMA), ("now", NOTHING))], **more}


@pytest.fixture(scope="module")
def bird(parrots):
    return openai.OpenAI(base_url=parrots.url + "/v1", api_key="none", max_retries=0)


def test_responses_call_and_go_on_from_what_is_kept(bird):
    r = bird.responses.create(**responses_asks("weather"))
    assert r.status == "completed" and [i.type for i in r.output] == ["function_call"]
    call = r.output[0]
    assert call.name == "get_weather" and json.loads(call.arguments) == WANTED
    said = bird.responses.create(model="parrot", previous_response_id=r.id, input=[
        {"type": "function_call_output", "call_id": call.call_id, "output": "21"}])
    assert said.output_text == TEXTS["after"]
    same = bird.responses.create(model="parrot", input=[{"role": "user", "content": "Please #weather"}, call.model_dump(), {
        "type": "function_call_output", "call_id": call.call_id, "output": [{"type": "input_text", "text": "21"}]}])
    assert same.output_text == TEXTS["after"] and same.usage.input_tokens == said.usage.input_tokens


CHOICES = {"type": "object", "properties": {"city": {"enum": ["Rio", "Paris"]}, "days": {"enum": [1, 2]}}, "required": ["city", "days"],
           "additionalProperties": False}
ODD = {"type": "object", "properties": {"city": {"type": "string"}}, "sideways": 1}


@pytest.mark.parametrize("strict, schema, shown, holds", [
    ("absent", CHOICES, True, True), (None, CHOICES, True, True), (True, CHOICES, True, True), (False, CHOICES, False, False),
    ("absent", ODD, False, False), (False, ODD, False, False)])
def test_responses_functions_are_strict_unless_they_say_otherwise(bird, strict, schema, shown, holds):
    """Where their schema can be held to; the answer says which are. The parrot would say São Paulo."""
    tool = {"type": "function", "name": "get_weather", "parameters": schema, **({} if strict == "absent" else {"strict": strict})}
    ask = {"model": "parrot", "input": "Please #weather", "tools": [tool], "temperature": 0, "max_output_tokens": 200}
    r = bird.responses.create(**ask)
    calls = [json.loads(i.arguments) for i in r.output if i.type == "function_call"]
    assert calls and (calls[0]["city"] in ("Rio", "Paris")) == holds, r
    assert (calls[0] == WANTED) == (not holds)
    assert [t.strict for t in r.tools] == [shown] and r.tools[0].parameters == schema
    assert [t.strict for t in bird.responses.retrieve(r.id).tools] == [shown]
    with bird.responses.stream(**ask) as stream:
        final = stream.get_final_response()
    assert [t.strict for t in final.tools] == [shown]
    assert [json.loads(i.arguments) for i in final.output if i.type == "function_call"] == calls
    if strict in ("absent", None) and holds:  # the template hears of it only where it was said
        assert r.usage.input_tokens < bird.responses.create(**{**ask, "tools": [{**tool, "strict": True}]}).usage.input_tokens


@pytest.mark.parametrize("choice, schema, shown", [
    ("auto", SCHEMA, True), ("required", SCHEMA, True), ({"type": "function", "name": "get_weather"}, SCHEMA, True), ("none", SCHEMA, False),
    ("auto", ODD, False), ("none", ODD, False), ("required", ODD, None)])
def test_responses_show_as_strict_what_is_kept_to(parrots, choice, schema, shown):
    """Where calls are forced the schema holds, or is refused; where none may come nothing does."""
    status, r = parrots.post("/v1/responses", {"model": "parrot", "input": "Please #weather", "temperature": 0, "max_output_tokens": 100, "tool_choice": choice,
                                               "tools": [{"type": "function", "name": "get_weather", "parameters": schema}]})
    assert (status, [t["strict"] for t in r.get("tools", [])]) == ((400, []) if shown is None else (200, [shown])), r
    called = any(i["type"] == "function_call" for i in r.get("output", []))
    assert called == (status == 200 and choice != "none")


def test_responses_show_only_the_named_one_as_strict(parrots):
    tools = [{"type": "function", "name": name, "parameters": SCHEMA} for name in ("now", "get_weather")]
    status, r = parrots.post("/v1/responses", {"model": "parrot", "input": "Please #weather", "temperature": 0, "max_output_tokens": 100,
                                               "tool_choice": {"type": "function", "name": "get_weather"}, "tools": tools})
    assert status == 200 and [t["strict"] for t in r["tools"]] == [False, True]


def test_responses_usual_strict_gives_way(bird, parrots):
    """To a grammar of the caller's, which an explicit one refuses; explicit ones that can't be held to are still refused."""
    tool = {"type": "function", "name": "get_weather", "parameters": CHOICES}
    ask = {"model": "parrot", "input": "Please #weather", "temperature": 0, "max_output_tokens": 60, "guided_regex": "[a-z]{3}"}
    status, r = parrots.post("/v1/responses", {**ask, "tools": [tool]})
    assert status == 200 and r["tools"][0]["strict"] is False and len(r["output"][0]["content"][0]["text"]) == 3, r
    assert parrots.post("/v1/responses", {**ask, "tools": [{**tool, "strict": True}]})[0] == 400
    status, r = parrots.post("/v1/responses", {"model": "parrot", "input": "x", "tools": [{**tool, "parameters": ODD, "strict": True}]})
    assert status == 400 and "sideways" in r["error"]["message"]
    status, r = parrots.post("/v1/responses", {"model": "parrot", "input": "Please #plain", "max_output_tokens": 60, "temperature": 0,
                                               "tools": [{"type": "function", "name": "now"}]})
    assert status == 200 and r["tools"] == [{"type": "function", "name": "now", "parameters": None, "strict": True}], r


def test_responses_allowed_tools(bird):
    tools = [{"type": "function", "name": n, "parameters": p} for n, p in (("get_weather", CHOICES), ("now", NOTHING))]
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "now"}]}
    r = bird.responses.create(model="parrot", input="Please #weather", tools=tools, tool_choice=choice, temperature=0, max_output_tokens=200)
    assert {i.name for i in r.output} == {"now"} and len(r.tools) == 2 and r.tool_choice.mode == "required"
    with pytest.raises(openai.BadRequestError, match="other"):
        bird.responses.create(model="parrot", input="x", tools=tools, tool_choice={**choice, "tools": [{"type": "function", "name": "other"}]})


def test_responses_stream_items_in_their_order(bird):
    with bird.responses.stream(**responses_asks("both")) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [i.type for i in final.output] == ["message", "function_call", "function_call"]
    assert [(i.name, json.loads(i.arguments)) for i in final.output[1:]] == [("now", {}), ("get_weather", {"city": "Rio"})]
    for item in final.output[1:]:
        pieces = [e.delta for e in events if e.type == "response.function_call_arguments.delta" and e.item_id == item.id]
        assert "".join(pieces) == item.arguments


EVENT = pydantic.TypeAdapter(openai.types.responses.ResponseStreamEvent)
ANSWER = {"format": {"type": "json_schema", "name": "city", "schema": {**SCHEMA, "additionalProperties": False}}}


@pytest.mark.parametrize("cue, more, items", [
    ("plain", {}, ["message"]), ("think", {}, ["reasoning", "message"]), ("weather", {}, ["function_call"]),
    ("both", {}, ["message", "function_call", "function_call"]), ("plain", {"tools": [], "text": ANSWER}, ["message"]),
    ("think", {"tools": [], "max_output_tokens": 3}, ["reasoning"])])
def test_responses_events_are_the_packages_own(parrots, cue, more, items):
    """Each is valid for the package's types, which its client doesn't look at; and says the item that it is about."""
    ask = json.dumps({**responses_asks(cue), **more, "stream": True}).encode()
    with urllib.request.urlopen(urllib.request.Request(parrots.url + "/v1/responses", ask, {"Content-Type": "application/json"})) as r:
        frames = [f.split("\n", 1) for f in r.read().decode().split("\n\n") if f]
    events = [json.loads(data.removeprefix("data: ")) for _, data in frames]
    assert [name for name, _ in frames] == ["event: " + e["type"] for e in events]
    assert [e["sequence_number"] for e in events] == list(range(len(events)))
    for e in events:
        assert EVENT.validate_python(e).type == e["type"]
    last = events[-1]["response"]
    assert [i["type"] for i in last["output"]] == items and last["status"] in events[-1]["type"]
    added, done = ([(e["output_index"], e["item"]["id"]) for e in events if e["type"] == "response.output_item." + w] for w in ("added", "done"))
    assert added == done == list(enumerate(i["id"] for i in last["output"])) and len(set(added)) == len(items)
    assert [e["item"] for e in events if e["type"] == "response.output_item.done"] == last["output"]
    assert all((e["output_index"], e["item_id"]) in added for e in events if "item_id" in e)


def test_responses_reason_in_an_item(bird):
    whole = bird.responses.create(**responses_asks("think"))
    last = list(bird.responses.create(**responses_asks("think"), stream=True))[-1].response
    for r in (whole, last):
        assert [i.type for i in r.output] == ["reasoning", "message"] and r.output_text.strip() == "So it says yes."
        assert r.output[0].content[0].text.strip() == "The bird wonders: <tool?"
        assert r.usage.output_tokens > r.usage.output_tokens_details.reasoning_tokens > 0


def test_responses_tool_choice(bird):
    r = bird.responses.create(**responses_asks("weather", tool_choice={"type": "function", "name": "get_weather"}))
    assert r.output[-1].name == "get_weather" and r.tool_choice.name == "get_weather"
    r = bird.responses.create(**responses_asks("weather", tool_choice="none"))
    assert [i.type for i in r.output] == ["message"]


# ---- what clients send

def send(server, request):
    data = json.dumps(request["body"]).replace("MODEL", "parrot").encode() if request["body"] else None
    r = urllib.request.Request(server.url + request["path"], data, {"Content-Type": "application/json", **request["headers"]},
                               method=request["method"])
    with urllib.request.urlopen(r, timeout=60) as answer:
        return answer.headers["Content-Type"].split(";")[0], answer.read().decode()


def frames(text):
    return [json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: ")]


def check_messages(kind, text, cue):
    seen = frames(text)
    assert kind == "text/event-stream" and seen[0]["type"] == "message_start" and seen[-1]["type"] == "message_stop"
    said = "".join(e["delta"].get("text", "") for e in seen if e["type"] == "content_block_delta")
    calls = [e["content_block"]["name"] for e in seen if e["type"] == "content_block_start" and e["content_block"]["type"] == "tool_use"]
    assert (calls == ["get_weather"]) if cue == "weather" else said == TEXTS[cue]


def check_ollama(kind, text, cue):
    seen = [json.loads(line) for line in text.splitlines()]
    assert kind == "application/x-ndjson" and seen[-1]["done"] and not any(x["done"] for x in seen[:-1])
    calls = [c["function"]["name"] for x in seen for c in x["message"].get("tool_calls", [])]
    said = "".join(x["message"]["content"] for x in seen)
    assert (calls == ["get_weather"]) if cue == "weather" else said == TEXTS[cue]


def check_responses(kind, text, cue):
    seen = frames(text)
    assert kind == "text/event-stream" and seen[-1]["type"] == "response.completed"
    output = seen[-1]["response"]["output"]
    assert output[-1].get("name") == "get_weather" if cue == "weather" else output[-1]["content"][0]["text"] == TEXTS[cue]


@pytest.mark.parametrize("file", FILES, ids=[os.path.basename(f)[:-5] for f in FILES])
def test_recorded_requests_are_answered(parrots, file):
    with open(file) as f:
        request = json.load(f)
    kind, text = send(parrots, request)
    sent = json.dumps(request["body"])
    cue = "after" if "21 degrees" in sent else "weather" if "#weather" in sent else "plain"
    path = request["path"].split("?")[0]
    if path == "/api/tags":
        assert json.loads(text)["models"][0]["name"] == "parrot:latest"
    elif path == "/api/show":
        assert json.loads(text)["model_info"]["llama.context_length"] > 0
    elif path == "/v1/embeddings":
        assert [len(d["embedding"]) > 8 for d in json.loads(text)["data"]] == [True, True]
    elif path == "/completion":
        assert frames(text)[-1]["stop"] and "".join(x["content"] for x in frames(text)) == TEXTS["plain"]
    else:
        {"/v1/messages": check_messages, "/api/chat": check_ollama, "/v1/responses": check_responses}[path](kind, text, cue)
