"""What stands between tenants and the server: trusted proxies, bounds of headers, pages in browsers."""
import http.client
import json
import os
import re
import socket
import time

import pytest

from conftest import ADAPTERS, LLAMA
from harness import Server
from test_tenants import ask, bearer, make_tenant

# What the OpenAI client for JavaScript asks for in a browser, before a chat; and Anthropic's.
OPENAI_JS = ("authorization,content-type,x-stainless-arch,x-stainless-helper-method,x-stainless-lang,x-stainless-os,"
             "x-stainless-package-version,x-stainless-retry-count,x-stainless-runtime,x-stainless-runtime-version,x-stainless-timeout")
ANTHROPIC_JS = ("anthropic-dangerous-direct-browser-access,anthropic-version,content-type,x-api-key,x-stainless-arch,"
                "x-stainless-lang,x-stainless-os,x-stainless-package-version,x-stainless-retry-count,x-stainless-runtime")
PAGE = "https://chat.example.org"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    extra = ["--threads", "1", "--state", str(tmp_path_factory.mktemp("http") / "s.db"), "--cors-origin", PAGE,
             "--trusted-proxy", "127.0.0.1,10.0.0.0/8", "--trusted-proxy", "unix"]
    with Server(LLAMA, {}, extra, name="tiny") as s:
        s.key = make_tenant(s, "t", requests_per_minute=1000)
        yield s


def say(server, text):
    """All of the answer to these bytes."""
    with socket.create_connection(("127.0.0.1", server.port), 20) as c:
        c.sendall(text.encode())
        answer = b""
        while chunk := c.recv(65536):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def log_has(server, pattern):
    end = time.time() + 10
    while not (found := re.findall(pattern, server.log())) and time.time() < end:
        time.sleep(0.02)
    return found


# ---- trusted proxies


@pytest.mark.parametrize("headers, client, over", [
    ({}, "127.0.0.1", "http"),
    ({"X-Forwarded-For": "1.2.3.4, 198.51.100.7, 10.0.0.3", "X-Forwarded-Proto": "https"}, "198.51.100.7", "https"),
    ({"Forwarded": 'for=1.2.3.4, for="[2001:db8::7]:99";proto=https'}, "2001:db8::7", "https"),
    ({"X-Forwarded-For": "1.2.3.4, not an address"}, "127.0.0.1", "http"),
    ({"X-Forwarded-For": "198.51.100.7", "Forwarded": "for=1.2.3.4"}, "127.0.0.1", "http"),
])
def test_the_log_names_the_client(server, headers, client, over):
    mark = f"mark{abs(hash((client, over, len(headers), str(headers)))):x}"
    status, data, _ = ask(server, "POST", "/v1/completions", {"prompt": [1, 5], "max_tokens": 1},
                          {**bearer(server.key), **headers, "X-Request-Id": mark})
    assert status == 200, data
    line, = log_has(server, rf"(?m)^.*{mark}.*$")
    assert f'client="{client}"' in line and f'over="{over}"' in line


def test_refused_keys_and_changes_name_the_client(server):
    told = 'a key was refused'
    assert ask(server, "GET", "/v1/models", headers={**bearer("lk_wrong"), "X-Forwarded-For": "203.0.113.77"})[0] == 401
    assert log_has(server, rf"{told}.*203\.0\.113\.77")
    assert re.search(r"lorikeet_keys_refused_total [1-9]", server.admin_request("GET", "/metrics")[1])
    status, answer, _ = server.admin("PUT", "/admin/v1/tenants/told", {}, headers={"X-Forwarded-For": "203.0.113.78"})
    assert status in (200, 201), answer
    assert server.admin("GET", "/admin/v1/audit?limit=1")[1]["data"][0]["by"] == "203.0.113.78"
    assert server.admin("PUT", "/admin/v1/tenants/told", {})[0] in (200, 201)
    assert server.admin("GET", "/admin/v1/audit?limit=1")[1]["data"][0]["by"].startswith("uid ")


def test_nobody_is_believed_by_default(tmp_path):
    with Server(LLAMA, {}, ["--threads", "1", "--state", str(tmp_path / "s.db")]) as s:
        assert s.admin("PUT", "/admin/v1/tenants/t", {}, headers={"X-Forwarded-For": "203.0.113.78"})[0] == 201
        assert s.admin("GET", "/admin/v1/audit?limit=1")[1]["data"][0]["by"].startswith("uid ")
        assert s.post("/v1/completions", {"prompt": [1]}, headers={"X-Forwarded-For": "203.0.113.79", **bearer("lk_x")})[0] == 401
        assert log_has(s, r"a key was refused.*127\.0\.0\.1") and "203.0.113" not in s.log()


# ---- bounds


@pytest.mark.parametrize("path, form", [("/v1/chat/completions", "openai"), ("/v1/messages", "anthropic"), ("/api/chat", "ollama"),
                                        ("/v1/m/tiny/messages", "anthropic"), ("/v1/m/tiny/v1/messages", "anthropic"),
                                        ("/v1/models", "openai")])
def test_too_many_headers_and_too_long_ones(server, path, form):
    def expect(text, status):
        got, body = say(server, text)
        error = json.loads(body)
        assert got == status, body
        if form == "anthropic":
            assert error["type"] == "error" and error["error"]["type"] and error["error"]["message"]
        elif form == "ollama":
            assert isinstance(error["error"], str)
        else:
            assert error["error"]["message"] and "param" in error["error"]
        return str(error)
    method = "GET" if path == "/v1/models" else "POST"
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    assert "100" in expect(head + "".join(f"X-{i}: {i}\r\n" for i in range(99)) + "\r\n", 431)
    for n in (17000, 30000):
        assert "16384" in expect(head + f"Cookie: {'a' * n}\r\n\r\n", 431)
    assert "16384" in expect(head + "".join(f"X-{i}: {'b' * 1000}\r\n" for i in range(17)) + "\r\n", 431)
    expect(f"{method} {path}?x={'a' * 9000} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 414)
    if method == "POST":
        expect(head + "Content-Length: 999999999999\r\n\r\n", 413)


def test_up_to_the_bounds_all_is_well(server):
    key = f"Authorization: Bearer {server.key}\r\n"
    head = f"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{key}"
    assert say(server, head + "".join(f"X-{i}: {i}\r\n" for i in range(97)) + "\r\n")[0] == 200
    assert say(server, head + "".join(f"X-{i}: {i}\r\n" for i in range(98)) + "\r\n")[0] == 431
    n = 16384 - sum(len(name) + len(value) + 4 for name, value in
                    (("Host", "x"), ("Connection", "close"), ("Authorization", f"Bearer {server.key}"), ("Cookie", "")))
    assert say(server, head + f"Cookie: {'a' * n}\r\n\r\n")[0] == 200
    assert say(server, head + f"Cookie: {'a' * (n + 1)}\r\n\r\n")[0] == 431
    for n in (40000, 300000):  # the HTTP library's own bound: its words, but an answer
        assert say(server, head + f"Cookie: {'a' * n}\r\n\r\n")[0] == 431


# ---- pages in browsers


def preflight(server, path, origin, asked, method="POST", **more):
    c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    c.request("OPTIONS", path, headers={"Origin": origin, "Access-Control-Request-Method": method, "Sec-Fetch-Mode": "cors",
                                        "Access-Control-Request-Headers": asked, **more})
    r = c.getresponse()
    r.read()
    c.close()
    return r.status, {k.lower(): v for k, v in r.getheaders()}


def allows(head, origin, method, asked):
    """What a browser makes of the answer (the Fetch standard, CORS-preflight fetch), for a request with credentials."""
    names = {x.strip().lower() for x in head.get("access-control-allow-headers", "").split(",")}
    methods = {x.strip() for x in head.get("access-control-allow-methods", "").split(",")}
    return (head.get("access-control-allow-origin") == origin and head.get("access-control-allow-credentials") == "true"
            and method in methods and set(asked.split(",")) <= names)


@pytest.mark.parametrize("path, asked", [("/v1/chat/completions", OPENAI_JS), ("/v1/responses", OPENAI_JS), ("/v1/embeddings", OPENAI_JS),
                                         ("/v1/messages", ANTHROPIC_JS), ("/api/chat", "content-type"),
                                         ("/v1/m/tiny/chat/completions", OPENAI_JS)])
def test_a_browser_may_ask(server, path, asked):
    status, head = preflight(server, path, PAGE, asked)
    assert status == 204 and allows(head, PAGE, "POST", asked), head
    assert int(head["access-control-max-age"]) > 0
    status, data, head = ask(server, "POST", path, {"model": "tiny"}, {"Origin": PAGE, **bearer(server.key)})
    assert head["access-control-allow-origin"] == PAGE  # whatever it says
    exposed = head["access-control-expose-headers"].lower()
    assert "x-request-id" in exposed and "retry-after" in exposed and "x-ratelimit-remaining-requests" in exposed
    assert ask(server, "POST", path, {}, {"Origin": PAGE})[2]["access-control-allow-origin"] == PAGE  # 401 is readable


def test_other_pages_may_not(server):
    for origin in ("https://evil.example", "null", PAGE + ".evil.example", "http://chat.example.org"):
        status, head = preflight(server, "/v1/chat/completions", origin, OPENAI_JS)
        assert status == 204 and not [k for k in head if k.startswith("access-control")], head
        assert "Origin" in head["vary"]
    status, head = preflight(server, "/v1/models", PAGE, "authorization", "GET")
    assert allows(head, PAGE, "GET", "authorization") and "POST" not in head["access-control-allow-methods"]
    status, head = preflight(server, "/v1/models", PAGE, "a b\tc", "GET")
    assert "a b" not in head["access-control-allow-headers"] and "Authorization" in head["access-control-allow-headers"]
    status, head = preflight(server, "/v1/models", PAGE, "authorization", "GET", **{"Access-Control-Request-Private-Network": "true"})
    assert head["access-control-allow-private-network"] == "true"
    assert preflight(server, "/nowhere", PAGE, OPENAI_JS)[0] == 401
    status, _, head = server.admin("OPTIONS", "/admin/v1/tenants", headers={"Origin": PAGE})
    assert status == 204 and not [k for k in head if k.startswith("access-control")]  # operators' pages are no pages
