"""/openapi.json says what there is: every path of it is answered, and every path of the listener has its words."""
import http.client
import json

import pytest


def paths(doc):
    return [(method.upper(), path) for path, item in doc["paths"].items() for method in item]


def ask(server, plane, method, path):
    if plane == "operators":
        return server.admin(method, path)
    c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    c.request(method, path)
    r = c.getresponse()
    text = r.read()
    c.close()
    return r.status, text, {k.lower(): v for k, v in r.getheaders()}


@pytest.mark.parametrize("plane", ["clients", "operators"])
def test_every_path_is_answered(server, plane):
    doc = server.get("/openapi.json")[1] if plane == "clients" else server.admin("GET", "/openapi.json")[1]
    assert doc["openapi"] == "3.1.0" and len(paths(doc)) > 15
    for path, item in doc["paths"].items():
        status, _, head = ask(server, plane, "PROPFIND", path.replace("{name}", "x"))
        # a method that nobody has: 405 says those that are there, a path that isn't there would be 404
        assert status == 405 and {m.upper() for m in item} <= set(head["allow"].split(", ")), (path, status, head)
    assert ask(server, plane, "PROPFIND", "/nowhere")[0] == 404


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
