"""Bodies that nearly are right, for every API: each is answered in its API's form, none by a 5xx, and the server goes on."""
import copy, http.client, json, os, random

import pytest

N = int(os.environ.get("STRANGE_BODIES", "40"))
TOOL = {"type": "object", "properties": {"a": {"type": "string"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
BODIES = {
    "/v1/messages": {"model": "tiny", "max_tokens": 2, "system": [{"type": "text", "text": "s"}], "messages": [
        {"role": "user", "content": "x"}, {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "t", "signature": ""}, {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "r"}]}]}],
        "tools": [{"name": "f", "input_schema": TOOL}], "tool_choice": {"type": "auto"}, "thinking": {"type": "disabled"},
        "metadata": {"user_id": "u"}, "stop_sequences": ["q"], "output_config": {"effort": "low"}, "stream": True},
    "/v1/messages/count_tokens": {"model": "tiny", "system": "s", "messages": [{"role": "user", "content": "x"}]},
    "/api/chat": {"model": "tiny:latest", "messages": [
        {"role": "user", "content": "x", "images": []}, {"role": "assistant", "content": "", "thinking": "t", "tool_calls": [
            {"function": {"name": "f", "arguments": {"a": 1}}}]}, {"role": "tool", "content": "r", "tool_name": "f"}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": TOOL}}], "format": "", "think": False,
        "options": {"num_predict": 2, "temperature": 0.5, "stop": ["q"], "seed": 1, "num_ctx": 9}, "keep_alive": "5m"},
    "/api/generate": {"model": "tiny", "prompt": "x", "system": "s", "raw": False, "options": {"num_predict": 2}, "stream": False},
    "/api/show": {"model": "tiny"},
    "/api/embed": {"model": "tiny", "input": ["a", "b"], "dimensions": 4, "truncate": True},
    "/api/embeddings": {"model": "tiny", "prompt": "a"},
    "/v1/embeddings": {"model": "tiny", "input": [[1, 2], "a", [3]], "encoding_format": "base64", "dimensions": 3, "pooling": "last"},
    "/v1/responses": {"model": "tiny", "instructions": "i", "max_output_tokens": 2, "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "x"}]}, {"type": "reasoning", "summary": [], "content": [
            {"type": "reasoning_text", "text": "t"}]}, {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "r"}], "tools": [{"type": "function", "name": "f", "parameters": TOOL}],
        "tool_choice": "auto", "text": {"format": {"type": "text"}}, "reasoning": {"effort": "low"}, "include": ["x"],
        "previous_response_id": None, "store": True, "metadata": {"a": "b"}, "stream": True},
    "/v1/responses/input_tokens": {"model": "tiny", "input": "x"},
    "/v1/chat/completions/input_tokens": {"model": "tiny", "messages": [{"role": "assistant", "content": None, "tool_calls": [CALL]}]},
    "/completion": {"prompt": ["a", [1, 2]], "n_predict": 2, "stop": ["q"], "n_probs": 1, "return_tokens": True, "stream": False},
    "/infill": {"input_prefix": "a", "input_suffix": "b", "input_extra": [{"filename": "f", "text": "t"}], "n_predict": 2},
}
ODD = [None, True, False, 0, -1, 3, 2**40, -0.5, 1e300, "", "x", "\u0001é𝄞", "a" * 300, [], [[]], {}, {"type": "text"}, {"type": "image"}, ["x", 1],
       [{"type": "text", "text": "y"}], {"a": {"b": {"c": [1]}}}, "resp_0", "json"]


def places(v, path=()):
    """Every place in a value, as a path of keys."""
    yield path
    for k in v if isinstance(v, dict) else range(len(v)) if isinstance(v, list) else ():
        yield from places(v[k], path + (k,))


def change(rng, body):
    path = rng.choice([p for p in places(body) if p])
    at = body
    for k in path[:-1]:
        at = at[k]
    what = rng.randrange(4)
    if what == 0:
        del at[path[-1]]
    elif what == 1 and isinstance(at, list):
        at.insert(path[-1], copy.deepcopy(rng.choice(ODD)))
    elif what == 1:
        at[rng.choice(["type", "role", "content", "text", "n", "stream", "model", "x"])] = copy.deepcopy(rng.choice(ODD))
    else:
        at[path[-1]] = copy.deepcopy(rng.choice(ODD))


@pytest.mark.parametrize("path", sorted(BODIES))
def test_they_are_answered(server, path):
    rng = random.Random(path)
    host = server.url.split("//")[1]
    for i in range(N):
        body = copy.deepcopy(BODIES[path])
        for _ in range(rng.randrange(1, 4)):
            if body:
                change(rng, body)
        data = json.dumps(body).encode()
        conn = http.client.HTTPConnection(host, timeout=60)
        conn.request("POST", path, data, {"Content-Type": "application/json"})
        reply = conn.getresponse()
        text = reply.read().decode()
        conn.close()
        assert reply.status in (200, 400, 404), (reply.status, text[:300], body)
        if reply.status != 200:
            error = json.loads(text)["error"]
            message = error if path.startswith("/api/") else error["message"]
            assert message and isinstance(message, str)
            assert path[:12] != "/v1/messages" or json.loads(text)["type"] == "error"
        elif "json" in reply.headers["Content-Type"] and "ndjson" not in reply.headers["Content-Type"]:
            json.loads(text)
    assert server.get("/livez")[0] == 200
