"""/openapi.json says which fields there are and of which types: what is acted on is declared, what clients send is declared and
answered, and what isn't declared is refused by its name."""
import glob, http.client, json, os, re

import jsonschema
import pytest

import parrot
from harness import Server
from openapi_bodies import BODIES, VOICES

HERE = os.path.dirname(os.path.abspath(__file__))
DOCS = os.path.join(HERE, "..", "..", "docs")
RECORDED = sorted(f for d in ("recorded", "requests", "requests_other") for f in glob.glob(os.path.join(HERE, d, "*.json")))
MIDDLE = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>"]
WRONG = [7.5, -5, 1e12, "\u2028 odd", True, None, {"odd": 1}, [["odd"]]]


@pytest.fixture(scope="module")
def bird(tmp_path_factory):
    """Its template takes documents, and it has tokens for text in the middle."""
    texts = {"plain": "Good morning!", "after": "It sang.", MIDDLE[2]: "return a + b<|fim_pad|>"}
    model = parrot.make(str(tmp_path_factory.mktemp("fields") / "model"), texts, special=MIDDLE,
                        template="{% if documents %}{{ documents[0].text }}{% endif %}" + parrot.HERMES)
    with Server(model, {}, ["--threads", "2"], name="parrot") as s:
        yield s


@pytest.fixture(scope="module")
def doc(bird):
    return bird.get("/openapi.json")[1]


def schema_of(doc, path):
    return doc["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]


def checker(doc, schema):
    return jsonschema.Draft202012Validator({**schema, "components": doc["components"]})


def branches(doc, schema):
    """The schema with what it refers to, and each of its alternatives."""
    if "$ref" in schema:
        schema = doc["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return [schema] + [b for s in schema.get("anyOf", []) for b in branches(doc, s)]


def properties(doc, schema):
    return {k: v for b in branches(doc, schema) if "type" in b for k, v in b.get("properties", {}).items()}


def named(text):
    return json.loads(text.replace("MODEL", "parrot"))


def bodies():
    return [(path, named(json.dumps(body))) for path, body in BODIES]


def send(connection, path, body):
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    r = connection.getresponse()
    return r.status, r.read().decode()


def open_to(server):
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)


# ---- what is acted on is declared

def fields_of_docs():
    """(field, path) of the tables in clients.md and API.md."""
    text = open(os.path.join(DOCS, "clients.md")).read().split("## Fields: acted on")[1]
    for first, second in re.findall(r"^\| (.*?) \| (.*?) \|$", text, re.M):
        if re.match("acted on|given to|accepted|choose", second):
            paths = ["/v1/completions"] if "(completions)" in second else ["/v1/chat/completions"]
            for name in re.findall(r"[a-z_]+", re.sub(r"\(.*?\)|`.*?`", "", first)):
                yield from ((name, p) for p in paths)
    text = open(os.path.join(DOCS, "API.md")).read().split("## Parameters of both generation endpoints")[1].split("\n\n")[1]
    for first in re.findall(r"^\| (.*?) \|", text, re.M)[1:]:
        only, _, names = first.rpartition(": ")
        for name in set(re.findall(r"[a-z_]+(?:\.[a-z_]+)?", names)) - {"reasoning", "content"}:
            for kind, path in (("chat", "/v1/chat/completions"), ("completions", "/v1/completions")):
                if only in ("", kind):
                    yield name, path


def test_what_is_acted_on_is_declared(doc):
    fields = set(fields_of_docs())
    assert len(fields) > 90
    assert {("messages", "/v1/chat/completions"), ("suffix", "/v1/completions"), ("stream_options.include_usage", "/v1/completions")} <= fields
    missing = []
    for name, path in sorted(fields):
        schema = schema_of(doc, path)
        for part in name.split("."):
            schema = properties(doc, schema).get(part)
            if schema is None:
                missing.append((name, path))
                break
    assert missing == []


def fields_of_dialects():
    """(field, paths, one of which has it) of the tables in dialects.md."""
    text = open(os.path.join(DOCS, "dialects.md")).read()
    for heading, paths in (("Anthropic", ["/v1/messages"]), ("Ollama", ["/api/chat", "/api/generate"]), ("OpenAI Responses", ["/v1/responses"])):
        section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
        for first, second in re.findall(r"^\| (`[a-z].*?) \| (.*?) \|$", section, re.M):
            if not re.match("ignored|refused|501", second):
                names = re.findall(r"`([a-z_.]+)`", re.sub(r"\(.*?\)", "", first))
                yield from ((name, tuple(paths)) for name in names if name not in ("input_schema", "function"))


def test_what_other_apis_act_on_is_declared(doc):
    fields = set(fields_of_dialects())
    assert len(fields) > 50
    options = properties(doc, {"$ref": "#/components/schemas/OllamaOptions"})
    missing = []
    for name, paths in sorted(fields):
        whole, _, inner = name.removeprefix("options.").partition(".")
        found = [p[whole] for p in [properties(doc, schema_of(doc, path)) for path in paths] + [options] * ("/api/chat" in paths) if whole in p]
        if not found or inner and inner not in properties(doc, found[0]):
            missing.append((name, paths))
    assert missing == []


def fields_of_readers():
    """Names that the readers of clients' requests have in their calls and tables."""
    calls = (r'read_(?:bool|int|float|text|object|array)\(\s*&?[\w.>-]+,\s*"([a-z_]+)"', r'^ *\{"([a-z_]+)", [-\d.e]+, [\d.e]+, offsetof',
             r'json_object_get\((?:r->object|t->in\.object|t\.in\.object|c->body),\s*"([a-z_]+)"\)')
    operators = "admin|api_admin|api_adapters|api_sglang|api_lora|adapter_ops|client|cmd_|conf|eval|tenant|openapi"
    for file in glob.glob(os.path.join(DOCS, "..", "server", "*.c")):
        if not re.match(operators, os.path.basename(file)):
            text = open(file).read()
            yield from (name for call in calls for name in re.findall(call, text, re.M))


def test_what_is_read_is_declared(doc):
    declared = set()
    def collect(v):
        for k, inner in v.items() if isinstance(v, dict) else enumerate(v) if isinstance(v, list) else ():
            if k == "properties":
                declared.update(inner)
            collect(inner)
    collect({name: s for name, s in doc["components"]["schemas"].items() if name.endswith(("Request", "Options"))})
    fields = set(fields_of_readers())
    assert len(fields) > 100 and fields - declared == set()


# ---- what is sent is declared, and answered

@pytest.mark.parametrize("file", RECORDED, ids=[os.path.basename(f)[:-5] for f in RECORDED])
def test_what_clients_sent_is_declared(doc, file):
    request = named(open(file).read())
    path = request["path"].split("?")[0]
    assert request["method"].lower() in doc["paths"].get(path, {}) or path in ("/", "/v1/models/parrot"), path
    if request["method"] == "POST":
        checker(doc, schema_of(doc, path)).validate(request["body"])


def test_every_declared_field_is_taken(bird, doc):
    """Each stands in a body that fits its schema and is answered."""
    seen = {path: set() for path, item in doc["paths"].items() if "post" in item and schema_of(doc, path)["$ref"] != "#/components/schemas/Any"}
    connection, faults = open_to(bird), []
    for path, body in bodies():
        faults += [(path, e.json_path, e.message[:200]) for e in checker(doc, schema_of(doc, path)).iter_errors(body)]
        status, text = send(connection, path, body)
        if status != 200:
            faults.append((path, status, text[:200], str(body)[:300]))
        seen[path] |= set(body)
    assert faults == []
    schemas = {}
    for path, fields in seen.items():
        assert fields, f"{path}: no body"
        schemas.setdefault(schema_of(doc, path)["$ref"], set()).update(fields)
    assert {ref: sorted(set(properties(doc, {"$ref": ref})) - fields) for ref, fields in schemas.items()
            if set(properties(doc, {"$ref": ref})) - fields} == {}


def test_voices_are_taken(server, doc):
    for path, body in (("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}), ("/v1/completions", {"prompt": "x"})):
        for voice in VOICES:
            asked = {**body, **voice, "max_tokens": 1}
            checker(doc, schema_of(doc, path)).validate(asked)
            assert server.post(path, asked)[0] == 200
            (key, (entry,)), = voice.items()
            for field in entry:
                status, answer = server.post(path, {**asked, key: [{**entry, field: {"odd": 1}}]})
                assert status == 400 and key in answer["error"]["message"], answer


# ---- what isn't declared is refused

def spoil(doc, schema, sample, where=()):
    """(path of keys, value, body) for each declared property: the sample with one value that the schema refuses."""
    if isinstance(sample, list) and sample:
        for b in branches(doc, schema):
            for at, value, wrong in spoil(doc, b.get("items", {}), sample[0], (*where, 0)):
                yield at, value, [wrong, *sample[1:]]
        return
    if not isinstance(sample, dict):
        return
    for name, inner in properties(doc, schema).items():
        if name not in sample:
            continue
        for value in WRONG:
            if not checker(doc, inner).is_valid(value):
                yield (*where, name), value, {**sample, name: value}
        for at, value, wrong in spoil(doc, inner, sample[name], (*where, name)):
            yield at, value, {**sample, name: wrong}


def test_other_types_are_refused(bird, doc):
    connection, done, wrong, n = open_to(bird), set(), [], 0
    for path, body in bodies():
        ref, fresh = schema_of(doc, path)["$ref"], set()
        for at, value, spoilt in spoil(doc, schema_of(doc, path), body):
            if (ref, at) in done:
                continue
            fresh.add((ref, at))
            n += 1
            status, text = send(connection, path, spoilt)
            field = [k for k in at if k][-1]
            if status != 400 or field not in text:
                wrong.append((path, at, value, status, text[:160]))
        done |= fresh
    assert n > 3000 and wrong == []



def test_limits_have_their_own_names(bird):
    for field in ("max_tokens", "max_completion_tokens", "n_predict"):
        body = {"messages": [{"role": "user", "content": "a"}], field: 0}
        assert field in bird.post("/v1/chat/completions", body)[1]["error"]["message"]
        status, answer = bird.post("/v1/completions", {"prompt": "a", field: 2, "min_tokens": 3})
        assert status == 400 and f"at most {field} (2)" in answer["error"]["message"]
    status, answer = bird.post("/v1/responses", {"input": "a", "max_output_tokens": 0})
    assert status == 400 and answer["error"]["message"].startswith("max_output_tokens: found 0")


# ---- answers

def undeclared(doc, schema, answer, where=""):
    """Fields of the answer that its schema doesn't name. An object without named fields may have any."""
    if isinstance(answer, list):
        items = [b["items"] for b in branches(doc, schema) if "items" in b]
        return {f for a in answer for i in items for f in undeclared(doc, i, a, where)}
    known = properties(doc, schema)
    if not isinstance(answer, dict) or not known:
        return set()
    return {f"{where}.{k}" for k in answer if k not in known} | {
        f for k, v in answer.items() if k in known for f in undeclared(doc, known[k], v, f"{where}.{k}")}


def fit(doc, method, path, kind, text):
    """What is wrong with a good answer: its type isn't declared, or its JSON isn't as the schema says."""
    content = doc["paths"][path][method]["responses"]["200"]["content"]
    if kind not in content:
        return [(path, kind)]
    if kind != "application/json":
        return []
    schema, answer = content[kind]["schema"], json.loads(text)
    faults = [(path, e.json_path, e.message[:200]) for e in checker(doc, schema).iter_errors(answer)]
    return faults + [(path, field) for field in undeclared(doc, schema, answer)]


def exchange(connection, method, path, body=None):
    connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
    r = connection.getresponse()
    text = r.read().decode()
    assert r.status == 200, (path, body, text)
    return r.headers["Content-Type"].split(";")[0], text


def test_answers_are_as_declared(bird, doc):
    connection, faults = open_to(bird), []
    for path, body in bodies():
        faults += fit(doc, "post", path, *exchange(connection, "POST", path, body))
    kept = json.loads(exchange(connection, "POST", "/v1/responses", {"model": "parrot", "input": "hello"})[1])["id"]
    names = {"/v1/models/{name}": ["parrot"], "/v1/responses/{name}": [kept], "/v1/responses/{name}/input_items": [kept]}
    silent = {path for path in doc["paths"] if path.startswith("/api/blobs")}  # 501
    for path in {p for p, item in doc["paths"].items() if "get" in item} - silent:
        for name in names.get(path, [""]):
            faults += fit(doc, "get", path, *exchange(connection, "GET", path.replace("{name}", name)))
    faults += fit(doc, "delete", "/v1/responses/{name}", *exchange(connection, "DELETE", f"/v1/responses/{kept}"))
    assert faults == [] and list(doc["paths"]["/metrics"]["get"]["responses"]["200"]["content"]) == ["text/plain"]


def test_answers_with_calls_and_thoughts_are_as_declared(doc, tmp_path):
    """What only some models say; and adapters among the models."""
    texts = {"plain": "<think>\nhm\n</think>\n\nGood.", "after": "It sang.",
             "call": '<tool_call>\n{"name": "sing", "arguments": {"n": 1}}\n</tool_call>'}
    model = parrot.make(str(tmp_path / "model"), texts, template=parrot.HERMES_THINKS, special=("<think>", "</think>"))
    faults, keys = [], set()
    with Server(model, {}, ["--threads", "2"], name="parrot") as s:
        connection = open_to(s)
        for cue in ("plain", "call"):
            for path, body in bodies():
                if body.get("stream") or not body.get("tools") or path not in ("/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat"):
                    continue
                turn = {"role": "user", "content": f"a #{cue}"}
                asked = {"model": "parrot", "tools": body["tools"], "max_tokens": 200, "temperature": 0, "stream": False,
                         **({"input": [turn]} if path == "/v1/responses" else {"messages": [turn]})}
                kind, text = exchange(connection, "POST", path, asked)
                faults += fit(doc, "post", path, kind, text)
                keys |= {k for k in ("reasoning_content", '"tool_calls"', "function_call", "tool_use", '"thinking"') if k in text}
        asked = {"messages": [{"role": "user", "content": "a #call"}], "functions": [{"name": "sing"}], "max_tokens": 200}
        faults += fit(doc, "post", "/v1/chat/completions", *exchange(connection, "POST", "/v1/chat/completions", asked))
    assert faults == [] and len(keys) == 5, keys


def test_adapters_are_as_declared(server, doc):
    connection, faults = open_to(server), []
    for path in ("/v1/models", "/v1/models/qv_r4", "/lora-adapters", "/api/tags", "/api/ps", "/v1/models/tiny"):
        declared = "/v1/models/{name}" if path.count("/") == 3 else path
        faults += fit(doc, "get", declared, *exchange(connection, "GET", path))
    faults += fit(doc, "post", "/api/show", *exchange(connection, "POST", "/api/show", {"model": "qv_r4"}))
    assert faults == []
