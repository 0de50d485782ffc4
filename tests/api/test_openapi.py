"""/openapi.json says what there is: every path of it is answered, and every path of the listener has its words."""
import json

import pytest


def paths(doc):
    return [(method.upper(), path) for path, item in doc["paths"].items() for method in item]


@pytest.mark.parametrize("plane", ["clients", "operators"])
def test_every_path_is_answered(server, plane):
    doc = server.get("/openapi.json")[1] if plane == "clients" else server.admin("GET", "/openapi.json")[1]
    assert doc["openapi"] == "3.1.0" and len(paths(doc)) > 15
    for method, path in paths(doc):
        # another method than those that are there: 405 with Allow; a path that isn't there would be 404
        where = path.replace("{name}", "x")
        if plane == "clients":
            request = server.post(where, {}) if method != "POST" else server.get(where)
            status = request[0]
        else:
            status = server.admin("POST" if method == "GET" else "GET", where)[0]
        assert status == 405 or where in ("/lora-adapters", "/admin/v1/adapters/x") or len(doc["paths"][path]) > 1, (method, path, status)


def test_schemas_are_whole(server):
    doc = server.get("/openapi.json")[1]
    text = json.dumps(doc)
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in doc["components"]["schemas"], name
    for method, path in paths(doc):
        operation = doc["paths"][path][method.lower()]
        assert operation["summary"] and {"200", "400", "404", "503"} <= set(operation["responses"]), path
        assert ("{name}" in path) == ("parameters" in operation), path


def test_paths_of_clients_have_words(server):
    doc = server.get("/openapi.json")[1]
    silent = [path for method, path in paths(doc) if doc["paths"][path][method.lower()]["summary"] == path.replace("{name}", "*")]
    assert silent == []
