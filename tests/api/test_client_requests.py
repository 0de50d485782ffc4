"""What clients send, replayed from tests/api/requests: MODEL stands for the model's name. Those of instructor, LiteLLM
and the AI SDK were recorded; Continue's in an editor are written as it sends them. More are in test_clients_recorded.py."""
import glob, json, os, urllib.request

import pytest

import parrot
from harness import Server
from test_openai_tools import TEXTS

FILES = sorted(glob.glob(os.path.join(os.path.dirname(os.path.abspath(__file__)), "requests", "*.json")))


@pytest.fixture(scope="module")
def parrots(tmp_path_factory):
    model = parrot.make(str(tmp_path_factory.mktemp("wire") / "model"), TEXTS, template=parrot.HERMES_THINKS)
    with Server(model, {}, ["--threads", "2"], name="parrot") as s:
        yield s


def send(server, request):
    data = json.dumps(request["body"]).replace("MODEL", "parrot").encode() if request["body"] else None
    r = urllib.request.Request(server.url + request["path"], data, {"Content-Type": "application/json", **request["headers"]},
                               method=request["method"])
    with urllib.request.urlopen(r, timeout=60) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def events(text):
    """The chunks of a stream that ended well."""
    frames = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
    assert frames.pop() == "[DONE]"
    return [json.loads(f) for f in frames]


def joined(chunks):
    """(content, names of calls, arguments, finish_reason)"""
    choices = [c["choices"][0] for c in chunks if c["choices"]]
    if "text" in choices[0]:
        return "".join(c["text"] for c in choices), [], "", choices[-1]["finish_reason"]
    calls = [t for c in choices for t in c["delta"].get("tool_calls", [])]
    return ("".join(c["delta"].get("content") or "" for c in choices), [t["function"]["name"] for t in calls if "id" in t],
            "".join(t["function"]["arguments"] for t in calls), choices[-1]["finish_reason"])


@pytest.mark.parametrize("file", FILES, ids=[os.path.basename(f)[:-5] for f in FILES])
def test_recorded_requests_are_answered(parrots, file):
    request = json.load(open(file))
    kind, text = send(parrots, request)
    if request["method"] == "GET":
        answer = json.loads(text)
        assert answer["object"] == "list" and [m["id"] for m in answer["data"]] == ["parrot"]
        return
    body = request["body"]
    if body.get("stream"):
        assert kind.startswith("text/event-stream")
        chunks = events(text)
        content, names, arguments, finish = joined(chunks)
        usage = [c for c in chunks if c.get("usage")]
        assert bool(usage) == bool(body.get("stream_options", {}).get("include_usage"))
    else:
        answer = json.loads(text)
        message, finish = answer["choices"][0]["message"], answer["choices"][0]["finish_reason"]
        calls = [c["function"] for c in message.get("tool_calls", [])]
        content, names, arguments = message["content"] or "", [c["name"] for c in calls], "".join(c["arguments"] for c in calls)
        assert answer["usage"]["prompt_tokens"] > 10
    if "prompt" in body:
        assert finish == "stop"
        return
    last = body["messages"][-1]
    if body.get("tool_choice", "auto") != "auto" or "response_format" in body:
        if "tool_choice" in body:
            assert names == [body["tools"][0]["function"]["name"]] and not content
        value = json.loads(arguments or content)
        assert set(value) == {"city", "days"} and value["city"] in ("Paris", "Rio") and value["days"] in (1, 2, 3)
        return
    if last["role"] == "tool":
        assert (content, names, finish) == (TEXTS["after"], [], "stop")
    elif "#both" in str(last["content"]):
        assert (content, names, finish) == ("One moment.", ["now", "get_weather"], "tool_calls")
    elif "#think" in str(last["content"]):
        assert content == "So it says yes." and message["reasoning_content"]
    elif "#weather" in str(last["content"]):
        assert (content, names, finish) == ("", ["get_weather"], "tool_calls")
        assert json.loads(arguments) == {"city": "São Paulo", "days": 2}
    else:
        assert TEXTS["plain"].startswith(content) and content and finish in ("stop", "length")
