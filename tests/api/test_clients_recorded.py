"""What real clients asked (tests/api/recorded), asked again: answers are read by the types of the makers' own packages, and in the
order in which clients need their parts."""
import glob, json, os, urllib.request

import anthropic.types
import ollama
import openai
import openai.types.chat
import openai.types.responses
import pydantic
import pytest

import parrot
from harness import Server

FILES = sorted(glob.glob(os.path.join(os.path.dirname(os.path.abspath(__file__)), "recorded", "*.json")))
NAMES = [n for n in (os.path.basename(f)[:-5] for f in FILES) if not n.endswith("_generate")]
CALLS = {  # what a client's prompt has behind "#": the call that the model writes
    "readit": ("Read", {"file_path": "HOME/project/notes.txt"}),
    "execit": ("exec_command", {"cmd": "cat notes.txt"}),
    "contread": ("Read", {"filepath": "HOME/project/notes.txt"}),
    "weather": ("get_weather", {"city": "São Paulo", "days": 2}),
    "song": ("birds__sing", {"n": 2}),  # sing, of the namespace "birds"
}
TEXTS = {"plain": "Good morning!  I am a parrot. ", "after": "It says that parrots sing.", **{
    cue: "<tool_call>\n" + json.dumps({"name": name, "arguments": arguments}) + "\n</tool_call>" for cue, (name, arguments) in CALLS.items()}}
# The cue stands in the user's last turn, wherever a client puts its own words.
TEMPLATE = parrot.HERMES.replace(parrot.CUE, "") + (
    "{%- set ns = namespace(cue='plain') %}{%- for m in messages %}{%- if m.role == 'assistant' %}{%- set ns.cue = 'plain' %}"
    "{%- elif m.role == 'tool' %}{%- set ns.cue = 'after' %}{%- elif m.role == 'user' %}{%- for c in CUES %}"
    "{%- if '#' + c in (m.content or '') %}{%- set ns.cue = c %}{%- endif %}{%- endfor %}{%- endif %}{%- endfor %}"
    "<|im_start|>assistant\n<|cue_{{ ns.cue }}|>").replace("CUES", repr(sorted(CALLS)))
ONE_SYSTEM = "{%- for m in messages %}{%- if m.role == 'system' and not loop.first %}{{ raise_exception('system comes first') }}{%- endif %}{%- endfor %}"
WORDS = ("a by fly wing perch parrot feather wingspan wingspana wingspanby wingspanfly wingspanwing wingspanperch type string description "
         "properties object required items additionalProperties name parameters function enum array integer").split()


def serve(tmp_path_factory, template):
    model = parrot.make(str(tmp_path_factory.mktemp("recorded") / "model"), TEXTS, template=template, words=WORDS, context=131072)
    return Server(model, {}, ["--threads", "2"], name="parrot")


@pytest.fixture(scope="module")
def bird(tmp_path_factory):
    with serve(tmp_path_factory, TEMPLATE) as s:
        yield s


@pytest.fixture(scope="module")
def strict_bird(tmp_path_factory):
    """One whose template wants a single system message."""
    with serve(tmp_path_factory, ONE_SYSTEM + TEMPLATE) as s:
        yield s


def load(name):
    with open(os.path.join(os.path.dirname(FILES[0]), name + ".json")) as f:
        return json.loads(f.read().replace("MODEL", "parrot"))


def send(server, request):
    data = json.dumps(request["body"]).encode() if request["body"] else None
    headers = {k: v for k, v in request["headers"].items() if k.lower() != "accept-encoding"}
    r = urllib.request.Request(server.url + request["path"], data, headers, method=request["method"])
    with urllib.request.urlopen(r, timeout=120) as answer:
        return answer.headers.get("Content-Type", "").split(";")[0], answer.read().decode()


def frames(text):
    return [json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: ") and line != "data: [DONE]"]


def read_chat(body, kind, text):
    """(content, calls, end) of OpenAI's chat."""
    if not body.get("stream"):
        answer = openai.types.chat.ChatCompletion.model_validate_json(text)
        assert kind == "application/json" and answer.usage.prompt_tokens > 10
        m = answer.choices[0].message
        return m.content or "", [(c.function.name, c.function.arguments) for c in m.tool_calls or []], answer.choices[0].finish_reason
    assert kind == "text/event-stream" and text.endswith("data: [DONE]\n\n")
    chunks = [openai.types.chat.ChatCompletionChunk.model_validate(f) for f in frames(text)]
    wants_usage = (body.get("stream_options") or {}).get("include_usage")
    assert bool(chunks[-1].usage) == bool(wants_usage) and all(c.choices for c in chunks[:-1])
    said, calls, end = "", {}, None
    for c in [c.choices[0] for c in chunks if c.choices]:
        assert end is None
        said, end = said + (c.delta.content or ""), c.finish_reason
        for t in c.delta.tool_calls or []:
            known = calls.setdefault(t.index, [None, ""])
            assert bool(t.id) == bool(t.function.name) == (known[0] is None)
            known[0], known[1] = known[0] or t.function.name, known[1] + (t.function.arguments or "")
    return said, [tuple(c) for c in calls.values()], end


def read_messages(body, kind, text):
    """Anthropic's stream: blocks one after the other, each opened and closed; usage at both ends."""
    seen = frames(text)
    adapter = pydantic.TypeAdapter(anthropic.types.RawMessageStreamEvent)
    events = [adapter.validate_python(f) for f in seen if f["type"] != "ping"]
    assert kind == "text/event-stream" and events[0].type == "message_start" and events[-1].type == "message_stop"
    assert events[0].message.usage.input_tokens > 10 and events[-2].usage.output_tokens > 0
    said, calls, open_at, n = "", [], None, 0
    for e in events[1:-2]:
        if e.type == "content_block_start":
            assert open_at is None and e.index == n
            open_at, n = n, n + 1
            if e.content_block.type == "tool_use":
                calls.append([e.content_block.name, ""])
        elif e.type == "content_block_delta":
            assert e.index == open_at
            if e.delta.type == "input_json_delta":
                calls[-1][1] += e.delta.partial_json
            else:
                said += e.delta.text
        else:
            assert e.type == "content_block_stop" and e.index == open_at
            open_at = None
    assert open_at is None and events[-2].type == "message_delta"
    return said, [tuple(c) for c in calls], {"tool_use": "tool_calls", "end_turn": "stop"}[events[-2].delta.stop_reason]


def read_responses(body, kind, text):
    """The Responses' stream: numbered; Codex takes items from output_item.done, others from the deltas."""
    adapter = pydantic.TypeAdapter(openai.types.responses.ResponseStreamEvent)
    events = [adapter.validate_python(f) for f in frames(text)]
    assert kind == "text/event-stream" and [e.sequence_number for e in events] == list(range(len(events)))
    assert events[0].type == "response.created" and events[-1].type == "response.completed"
    final = events[-1].response
    done = [e.item for e in events if e.type == "response.output_item.done"]
    assert [i.id for i in done] == [i.id for i in final.output] and final.usage.output_tokens > 0
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == final.output_text
    calls = [(i.name, i.arguments) for i in done if i.type == "function_call"]
    return final.output_text, calls, "tool_calls" if calls else "stop"


def read_ollama(body, kind, text):
    parts = [ollama.ChatResponse.model_validate_json(line) for line in text.splitlines()]
    assert kind == ("application/x-ndjson" if body["stream"] else "application/json") and (body["stream"] or len(parts) == 1)
    assert parts[-1].done and not any(p.done for p in parts[:-1]) and parts[-1].eval_count > 0
    calls = [(c.function.name, json.dumps(dict(c.function.arguments))) for p in parts for c in p.message.tool_calls or []]
    return "".join(p.message.content or "" for p in parts), calls, "tool_calls" if calls else parts[-1].done_reason


READERS = {"/v1/chat/completions": read_chat, "/v1/messages": read_messages, "/v1/responses": read_responses, "/api/chat": read_ollama}


def check(server, name):
    request = load(name)
    body, path = request["body"], request["path"].split("?")[0]
    said, calls, end = READERS[path](body, *send(server, request))
    if name == "llm_schema":
        value = json.loads(said)
        assert set(value) == {"name", "age"} and type(value["age"]) is int and type(value["name"]) is str
    elif name.endswith("_tools"):
        sent = json.dumps(body)
        wanted = next(call for cue, call in CALLS.items() if "#" + cue in sent)
        assert [(n, json.loads(a)) for n, a in calls] == [wanted] and (said.strip(), end) == ("", "tool_calls")
    else:
        assert (said.strip(), calls, end) == (TEXTS["after" if name.endswith("_result") else "plain"].strip(), [], "stop")


def is_chat(name):
    return load(name)["path"].split("?")[0] in READERS


@pytest.mark.parametrize("name", [n for n in NAMES if is_chat(n)])
def test_a_client_is_answered(bird, name):
    check(bird, name)


@pytest.mark.parametrize("name", [n for n in NAMES if not is_chat(n)])
def test_what_clients_ask_before(bird, name):
    request = load(name)
    kind, text = send(bird, request)
    if request["method"] == "HEAD":
        assert text == ""
        return
    answer = json.loads(text)
    if request["path"] == "/v1/models":
        assert openai.types.Model.model_validate(answer["data"][0]).id == "parrot"
    elif request["path"] == "/api/tags":
        assert ollama.ListResponse.model_validate(answer).models[0].model == "parrot:latest"
    elif request["path"] == "/api/ps":
        assert ollama.ProcessResponse.model_validate(answer).models[0].size > 0
    elif request["path"] == "/api/show":
        assert set(ollama.ShowResponse.model_validate(answer).capabilities) == {"completion", "tools"}
    elif request["path"] == "/api/embed":
        assert len(ollama.EmbedResponse.model_validate(answer).embeddings[0]) > 100
    else:
        assert request["path"] == "/api/version" and answer["version"][0].isdigit()


def test_generate(bird):
    _, text = send(bird, load("open_webui_ollama_generate"))
    parts = [ollama.GenerateResponse.model_validate_json(line) for line in text.splitlines()]
    assert "".join(p.response for p in parts) == TEXTS["plain"] and parts[-1].done_reason == "stop"


def test_a_later_system_message(bird, strict_bird):
    """As Claude Code sends it. Where the template wants one, and first, it is the user's words."""
    ask = {"model": "parrot", "max_tokens": 50, "system": "Be a parrot.", "messages": [
        {"role": "user", "content": "Hello"}, {"role": "system", "content": [{"type": "text", "text": "It is noon."}]},
        {"role": "assistant", "content": "Hi"}, {"role": "system", "content": "It is night."}, {"role": "user", "content": "Please"}]}
    for server, apart in ((bird, True), (strict_bird, False)):
        status, answer = server.post("/v1/messages", ask)
        assert status == 200 and answer["content"][0]["text"] == TEXTS["plain"], answer
        status, counted = server.post("/v1/messages/count_tokens", {k: v for k, v in ask.items() if k != "max_tokens"})
        plain = {"messages": [{"role": "system", "content": "Be a parrot."}, {"role": "user", "content": "Hello"}, {"role": "system", "content": "It is noon."},
                              {"role": "assistant", "content": "Hi"}, {"role": "system", "content": "It is night."}, {"role": "user", "content": "Please"}]}
        if apart:
            assert counted == {"input_tokens": server.post("/v1/chat/completions/input_tokens", {"model": "parrot", **plain})[1]["input_tokens"]}
    status, answer = bird.post("/v1/messages", {**ask, "messages": [*ask["messages"], {"role": "system", "content": [{"type": "tool_result"}]}]})
    assert status == 400 and "messages[5].content[0]" in answer["error"]["message"] and "tool_result" in answer["error"]["message"]
    status, answer = bird.post("/v1/messages", {**ask, "messages": [{"role": "system", "content": "Be a parrot."}]})
    assert status == 400 and "messages[0].role" in answer["error"]["message"]


def test_functions_of_a_namespace(bird):
    """As Codex groups its own; a search of the web that the server doesn't have isn't among the answer's tools."""
    client = openai.OpenAI(base_url=bird.url + "/v1", api_key="none", max_retries=0)
    sing = {"type": "function", "name": "sing", "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}}}
    space = {"type": "namespace", "name": "birds", "description": "Birds", "tools": [sing]}
    ask = {"model": "parrot", "tools": [{"type": "web_search", "external_web_access": False}, space], "input": "Please #song"}
    whole = bird.post("/v1/responses", ask)[1]
    with client.responses.stream(**ask) as stream:
        final = stream.get_final_response()
    for tools, item in ((whole["tools"], whole["output"][0]), ([t.model_dump() for t in final.tools], final.output[0].model_dump())):
        assert [t["type"] for t in tools] == ["namespace"]
        assert (item["type"], item["namespace"], item["name"], json.loads(item["arguments"])) == ("function_call", "birds", "sing", {"n": 2})
    again = bird.post("/v1/responses", {**ask, "input": [{"role": "user", "content": "Please #song"}, whole["output"][0], {
        "type": "function_call_output", "call_id": whole["output"][0]["call_id"], "output": "la la"}]})[1]
    assert again["output"][0]["content"][0]["text"] == TEXTS["after"]
    count = lambda body: bird.post("/v1/responses/input_tokens", body)[1]["input_tokens"]
    flat = {"type": "function", "name": "birds__sing", "parameters": sing["parameters"]}
    assert count(ask) == count({**ask, "tools": [flat]})
    for tools, word in (([{"type": "file_search", "vector_store_ids": []}], "file_search"), ([{**space, "tools": [{"type": "custom", "name": "x"}]}], "custom"),
                        ([{"type": "namespace", "name": "birds", "tools": 3}], "tools")):
        status, answer = bird.post("/v1/responses", {**ask, "tools": tools})
        assert status == 400 and word in answer["error"]["message"], answer
