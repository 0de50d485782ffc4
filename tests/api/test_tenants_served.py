"""Which version served which request; and usage where there is no file for it."""
import csv
import hashlib
import io
import subprocess
import time

import pytest

from conftest import LLAMA
from harness import BINARY, Server
from test_tenants import SHOWN, ask, bearer, command, make_tenant, speak


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    extra = ["--threads", "1", "--state", str(tmp_path_factory.mktemp("served") / "s.db"), "--served-log", "20"]
    with Server(LLAMA, SHOWN, extra, name="tiny") as s:
        speak(s, None, model="shows_A", n=3)  # before there are tenants
        s.open = s.admin("GET", "/admin/v1/served")[1]["data"]
        s.keys = [make_tenant(s, "one"), make_tenant(s, "two", aliases={"mine": "shows_B+0.5*shows_C"})]
        yield s


def served(server, query=""):
    status, answer, _ = server.admin("GET", "/admin/v1/served" + query)
    assert status == 200, answer
    return answer


def test_every_request_leaves_its_line(server):
    row, = server.open
    assert (row["tenant"], row["key"], row["client"]) == ("", "", "127.0.0.1")
    assert (row["voice"], row["status"], row["tokens_in"], row["tokens_out"]) == ("shows_A", 200, 5, 3)
    shown = {}
    for key, body in ((0, {"model": "shows_B"}), (1, {"model": "mine"}), (0, {"model": "base", "n": 2}), (1, {"model": "shows_B"})):
        status, answer, head = speak(server, server.keys[key], **body)
        assert status == 200
        shown[head["x-request-id"]] = (head["x-adapter"], head["x-adapter-generation"], head.get("x-adapter-digest", ""), answer)
    assert speak(server, server.keys[0], model="nobody")[0] == 404  # nothing served it
    rows = served(server, "?limit=4")["data"]
    assert [r["request"] for r in rows] == list(shown)[::-1]
    for r in rows:
        adapter, generation, digest, answer = shown[r["request"]]
        assert r["voice"] == (adapter if adapter != "none" else "tiny") and r["version"] == generation
        assert r["digest"].startswith(digest) and bool(r["digest"]) == bool(digest)
        assert (r["tokens_in"], r["tokens_out"]) == (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"])
    assert [r["tenant"] for r in rows] == ["two", "one", "two", "one"]
    assert all(r["key"] == server.keys[r["tenant"] == "two"].split("_")[1] for r in rows)
    assert rows[2]["voice"] == "shows_B+0.5*shows_C" and rows[2]["version"].count(",") == 1


def test_lines_are_found(server):
    rows = served(server)["data"]
    for name in ("tenant", "key", "voice", "version", "request"):
        for value in {r[name] for r in rows}:
            query = value.replace("+", "%2B")
            assert served(server, f"?{name}={query}")["data"] == [r for r in rows if r[name] == value], (name, value)
    assert served(server, "?tenant=two&voice=shows_B")["data"] == [r for r in rows if (r["tenant"], r["voice"]) == ("two", "shows_B")]
    assert served(server, "?to=2001-01-01")["data"] == [] == served(server, f"?from={int(time.time()) + 60}")["data"]
    assert served(server, f"?from={int(time.time()) - 600}")["data"] == rows
    pages, before = [], 1 << 60
    while True:
        page = served(server, f"?limit=2&before={before}")
        pages += page["data"]
        before = page["before"]
        if not page["more"]:
            break
    assert pages == rows
    for bad in ("limit=0", "limit=x", "limit=1000000", "before=0", "before=-1", "before=", "from=yesterday", "format=xml"):
        assert server.admin("GET", "/admin/v1/served?" + bad)[0] == 400, bad
    assert server.get("/admin/v1/served")[0] in (401, 404)


def test_lines_as_csv(server):
    rows = served(server)["data"]
    status, text = server.admin_request("GET", "/admin/v1/served?format=csv")
    got = list(csv.DictReader(io.StringIO(text)))
    assert [{k: str(v) for k, v in r.items()} for r in rows] == got
    code, out, _ = command(server, "tenants", "served", "two")
    assert code == 0 and len(out.splitlines()) == 1 + sum(r["tenant"] == "two" for r in rows)


def test_streams_those_who_leave_and_other_dialects(server):
    import socket, json
    chat = {"model": "shows_D", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2, "stream": False}
    for path in ("/v1/chat/completions", "/v1/messages", "/api/chat"):
        assert ask(server, "POST", path, chat, bearer(server.keys[0]))[0] == 200
    assert ask(server, "POST", "/v1/embeddings", {"model": "shows_D", "input": "x"}, bearer(server.keys[0]))[0] == 200
    rows = served(server, "?voice=shows_D")["data"]
    assert len(rows) == 4 and {r["status"] for r in rows} == {200} and len({r["version"] for r in rows}) == 1
    body = json.dumps({"model": "shows_A", "prompt": [1, 5], "max_tokens": 400, "ignore_eos": True, "stream": True})
    with socket.create_connection(("127.0.0.1", server.port), 20) as c:
        c.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.keys[0]}\r\nX-Request-Id: leaver\r\n"
                  f"Content-Length: {len(body)}\r\n\r\n{body}".encode())
        head = b""
        while b"data: " not in head:  # one who leaves before it runs isn't served
            head += c.recv(1000)
    end = time.time() + 10
    while not (rows := served(server, "?request=leaver")["data"]) and time.time() < end:
        time.sleep(0.05)
    assert [r["status"] for r in rows] == [499]


def test_the_oldest_lines_go(server):
    for _ in range(25):
        speak(server, server.keys[0], n=1)
    rows = served(server, "?limit=1000")["data"]
    assert len(rows) == 20 and [r["id"] for r in rows] == list(range(rows[0]["id"], rows[0]["id"] - 20, -1))


def test_lines_live_through_a_restart_and_only_when_asked(tmp_path):
    extra = ["--threads", "1", "--state", str(tmp_path / "s.db")]
    with Server(LLAMA, SHOWN, [*extra, "--served-log", "5"]) as s:
        speak(s, None, model="shows_A")
    with Server(LLAMA, SHOWN, [*extra, "--served-log", "5"]) as s:
        assert [r["voice"] for r in served(s)["data"]] == ["shows_A"]
    with Server(LLAMA, SHOWN, extra) as s:
        speak(s, None, model="shows_A")
        status, answer, _ = s.admin("GET", "/admin/v1/served")
        assert status == 422 and "--served-log" in str(answer), answer
    r = subprocess.run([BINARY, "serve", "--model", LLAMA, "--served-log", "5"], capture_output=True, text=True)
    assert r.returncode != 0 and "--state" in r.stderr


def test_usage_without_a_state_file(tmp_path):
    """Kept in memory, to the end."""
    made = subprocess.run([BINARY, "keys", "generate", "k"], capture_output=True, text=True, check=True)
    key = made.stdout.strip()
    lines = [x for x in made.stderr.splitlines() if x.strip() and not x.startswith("for the")]
    (tmp_path / "t.yaml").write_text("tenants:\n  - name: filed\n" + "\n".join(lines) + "\n")
    assert hashlib.sha256(key.encode()).hexdigest() in made.stderr
    with Server(LLAMA, SHOWN, ["--threads", "1", "--tenants", str(tmp_path / "t.yaml")]) as s:
        for voice, n in (("shows_B", 2), ("shows_A", 3), ("shows_B", 4)):
            assert speak(s, key, n=n, model=voice)[0] == 200
        status, answer, _ = s.admin("GET", "/admin/v1/usage")
        assert status == 200 and not answer["more"], answer
        assert [(r["tenant"], r["voice"], r["requests"], r["tokens_in"], r["tokens_out"]) for r in answer["data"]] == [
            ("filed", "shows_A", 1, 5, 3), ("filed", "shows_B", 2, 10, 6)]
        assert len(s.admin_request("GET", "/admin/v1/usage?format=csv&tenant=filed")[1].split("\r\n")) == 4
        assert s.admin("GET", "/admin/v1/usage?tenant=other")[1]["data"] == []
        assert s.admin("GET", "/admin/v1/usage?to=2001-01-01")[1]["data"] == []
        assert s.admin("GET", "/admin/v1/audit")[0] == 422  # changes need the file
