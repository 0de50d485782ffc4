"""How the server begins, is asked, and ends: probes, headers, listeners, pings, draining. Raw sockets where a client
library would hide what is on the wire."""
import http.client, json, os, re, signal, socket, threading, time

import pytest

from conftest import ADAPTERS, LLAMA
from harness import ROOT, Server, free_port

DEMO = os.path.join(ROOT, "demo", "model")


def raw(server, text, timeout=20):
    """All bytes of the answer until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout) as s:
        s.sendall(text.encode())
        answer = b""
        while chunk := s.recv(65536):
            answer += chunk
    return answer.decode()


def head_of(server, path, **headers):
    c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    c.request("GET", path, headers=headers)
    r = c.getresponse()
    r.read()
    c.close()
    return r


def slow_body(n_prompts, **more):
    """Work for a while: many prompts, one at a time (--sequences 1)."""
    return {"model": "base", "prompt": [[1, 5, 9 + i % 50] for i in range(n_prompts)], "max_tokens": 480, "temperature": 0,
            "ignore_eos": True, **more}


class Stream:
    """A streamed completion read by a thread. HTTP/1.0: the body is what comes until the server closes."""

    def __init__(self, server, body, path="/v1/completions"):
        self.text, self.begun = "", threading.Event()
        self.socket = socket.create_connection(("127.0.0.1", server.port), 120)
        data = json.dumps({**body, "stream": True})
        self.socket.sendall(f"POST {path} HTTP/1.0\r\nContent-Length: {len(data)}\r\n\r\n{data}".encode())
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        parts = []
        try:
            while part := self.socket.recv(1 << 16):
                parts.append(part)
                if b"data:" in part:
                    self.begun.set()
        except OSError:
            pass
        self.text = b"".join(parts).decode().partition("\r\n\r\n")[2]
        self.begun.set()

    def join(self):
        self.thread.join(120)
        self.socket.close()
        return [json.loads(x[6:]) for x in self.text.splitlines() if x.startswith("data: {")]


def test_probes_and_version(server):
    assert server.get("/livez") == (200, {"status": "ok"}) == server.get("/health") == server.get("/readyz")
    status, version = server.get("/version")
    assert status == 200 and version["name"] == "lorikeet" and version["isa"]
    assert "200 OK" in raw(server, "HEAD /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").splitlines()[0]


def test_request_ids_are_kept_or_made(server):
    assert head_of(server, "/livez", **{"X-Request-Id": "mine_1-2"}).getheader("X-Request-Id") == "mine_1-2"
    for bad in ("a b", "x" * 129, "a;b"):
        made = head_of(server, "/livez", **{"X-Request-Id": bad}).getheader("X-Request-Id")
        assert made != bad and re.fullmatch(r"[A-Za-z0-9_-]{1,128}", made)
    assert len({head_of(server, "/livez").getheader("X-Request-Id") for _ in range(20)}) == 20


def test_paths_and_methods(server):
    status, answer = server.get("/v1/nothing")
    assert status == 404 and "/v1/nothing" in answer["error"]["message"]
    assert " 404 " in raw(server, "GET /livez%00x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").splitlines()[0]
    assert " 200 " in raw(server, "GET /%6civez?a=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").splitlines()[0]
    for path in ("/v1/models/../../etc", "/v1/models/..%2f..%2fetc", "/v1/models/%ff"):
        assert " 404 " in raw(server, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").splitlines()[0]
    long = "a" * 40000
    for line in (f"GET /{long} HTTP/1.1", f"GET /livez HTTP/1.1\r\nX: {long}"):
        assert raw(server, f"{line}\r\nHost: x\r\nConnection: close\r\n\r\n").split()[1] in ("414", "431")
    answer = raw(server, "DELETE /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert " 405 " in answer.splitlines()[0] and "\r\nAllow: POST\r\n" in answer
    answer = raw(server, "OPTIONS /v1/completions HTTP/1.1\r\nHost: x\r\nOrigin: http://a\r\nConnection: close\r\n\r\n")
    assert " 204 " in answer.splitlines()[0] and "Access-Control" not in answer


def test_who_spoke_is_in_the_headers(server):
    c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    seen = {}
    for model in ("tiny", "qv_r4", "tiny:qv_r4"):
        c.request("POST", "/v1/completions", json.dumps({"model": model, "prompt": [1, 5], "max_tokens": 1}))
        r = c.getresponse()
        body = json.loads(r.read())
        assert body["model"] == model
        seen[model] = (r.getheader("X-Adapter"), int(r.getheader("X-Adapter-Generation")), body["system_fingerprint"])
    c.close()
    assert seen["tiny"][:2] == ("none", 0) and seen["qv_r4"][0] == "qv_r4" and seen["qv_r4"][1] > 0
    assert seen["qv_r4"] == seen["tiny:qv_r4"] and seen["qv_r4"][2] != seen["tiny"][2]
    status, answer = server.post("/v1/completions", {"model": "qv_r4", "prompt": [1]}, headers={"X-Adapter": "patterns"})
    assert status == 400 and "X-Adapter" in answer["error"]["message"]


def test_long_bodies_go_through_a_worker_and_say_the_same(server):
    """Above and below the size at which parsing moves to a worker: the same answer."""
    body = {"model": "tiny", "prompt": "hello you", "max_tokens": 8, "temperature": 0, "ignore_eos": True}
    short = server.post("/v1/completions", body)[1]["choices"]
    assert short == server.post("/v1/completions", {**body, "user": "x" * 40000})[1]["choices"]
    status, answer = server.post("/v1/completions", {**body, "user": "x" * 40000, "top_p": 7})
    assert status == 400 and answer["error"]["param"] == "top_p"
    status, answer = server.post("/tokenize", {"content": "word " * 20000})
    assert status == 200 and answer["count"] == len(answer["tokens"]) > 20000
    assert server.post("/v1/completions", {"prompt": "x" * (5 << 20)})[0] == 413


def test_token_endpoints(server):
    _, a = server.post("/tokenize", {"content": "hello world"})
    _, b = server.post("/tokenize", {"prompt": "hello world", "return_token_strs": True})
    _, c = server.post("/v1/tokenize", {"content": "hello world", "with_pieces": True})
    assert a["count"] == len(a["tokens"]) and b["tokens"][-a["count"]:] == a["tokens"] and len(b["token_strs"]) == b["count"]
    assert [t["id"] for t in c["tokens"]] == a["tokens"] and "".join(t["piece"] for t in c["tokens"]) == "hello world"
    assert server.post("/detokenize", {"tokens": a["tokens"]})[1]["content"] == "hello world"
    assert server.post("/detokenize", {"tokens": [10 ** 9]})[0] == 400
    messages = [{"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}]
    _, t = server.post("/apply-template", {"messages": messages})
    assert "one\ntwo" in t["prompt"]
    _, n = server.post("/tokenize", {"content": t["prompt"]})
    _, chat = server.post("/v1/chat/completions", {"messages": messages, "max_tokens": 1})
    assert chat["usage"]["prompt_tokens"] == n["count"]
    for bad in ([], None, [{"role": "king", "content": "x"}], [{"role": "user"}], ["x"],
                [{"role": "user", "content": [{"type": "image_url"}]}], [{"role": "user", "content": 7}]):
        status, answer = server.post("/v1/chat/completions", {"messages": bad})
        assert status == 400 and answer["error"]["param"].startswith("messages"), (bad, answer)


def test_continue_final_message(server):
    messages = [{"role": "user", "content": "say"}, {"role": "assistant", "content": "Once upon a "}]
    _, t = server.post("/apply-template", {"messages": messages, "continue_final_message": True})
    assert t["prompt"].endswith(("Once upon a ", "Once upon a"))
    status, answer = server.post("/apply-template", {"messages": messages, "continue_final_message": True,
                                                     "add_generation_prompt": True})
    assert status == 400 and answer["error"]["param"] == "continue_final_message"


def test_metrics_are_well_formed(server):
    server.post("/v1/completions", {"model": "qv_r4", "prompt": [1, 5], "max_tokens": 4})
    for text in (server.get("/metrics")[1], server.admin_request("GET", "/metrics")[1]):
        types, seen = {}, set()
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                name, kind = line.split()[2:]
                assert name not in types, f"{name} twice"
                types[name] = kind
                continue
            if line.startswith("#"):
                continue
            m = re.fullmatch(r'([a-z_:]+)(\{(?:[a-z_]+="[^"]*",?)*\})? (\S+)', line)
            assert m, line
            float(m[3])
            assert (m[1], m[2]) not in seen, f"{line}: twice"
            seen.add((m[1], m[2]))
            assert m[1] in types or re.sub(r"_(bucket|sum|count)$", "", m[1]) in types, line
        assert types["lorikeet_time_to_first_token_seconds"] == "histogram"
        info = [l for l in text.splitlines() if l.startswith("vllm:lora_requests_info{")]
        assert len(info) == 1 and "qv_r4" in re.search(r'running_lora_adapters="([^"]*)"', info[0])[1].split(",")
        assert abs(float(info[0].split()[-1]) - time.time()) < 60
        assert "lorikeet_step_allocations_total 0" in text.splitlines()
        threads = {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if line.startswith("lorikeet_threads")}
        assert 1 <= threads["lorikeet_threads"] <= threads["lorikeet_threads_max"]
        assert sum(n for name, n in threads.items() if name.startswith("lorikeet_threads_limited{")) == 1


def test_operators_wire_form(server):
    load = lambda **b: server.admin_request("POST", "/v1/load_lora_adapter", b)
    assert load(lora_name="wire", lora_path="shows_B") == (200, "Success: LoRA adapter 'wire' added successfully.")
    status, text = load(lora_name="wire", lora_path="shows_B")
    error = json.loads(text)["error"]
    assert status == error["code"] == 400 and error["type"] == "InvalidUserInput" and "has already been loaded" in error["message"]
    assert load(lora_name="wire", lora_path=os.path.join(ADAPTERS, "shows_C"), load_inplace=True)[0] == 200
    for path in ("../llama/shows_A", "/etc", "..", "nothing", "shows_A/../../../models", "./../llama/shows_A"):
        assert load(lora_name="other", lora_path=path)[0] in (400, 404), path
    for name in ("", "a/b", "../x", "tiny", "x" * 65):
        assert load(lora_name=name, lora_path="shows_A")[0] == 400, name
    assert server.admin_request("POST", "/v1/load_lora_adapter", [])[0] == 400
    unload = lambda name: server.admin_request("POST", "/v1/unload_lora_adapter", {"lora_name": name})
    assert unload("wire") == (200, "Success: LoRA adapter 'wire' removed successfully.")
    status, text = unload("wire")
    assert status == 404 and json.loads(text)["error"]["type"] == "NotFoundError"


def test_pings_while_a_stream_waits():
    # The demo model: slow enough that the first stream outlasts a ping and its reader keeps up with it.
    with Server(DEMO, extra=["--threads", "1", "--sequences", "1", "--ping-interval", "100ms"]) as s:
        first = Stream(s, slow_body(128, max_tokens=200))
        assert first.begun.wait(30)
        waiting = Stream(s, {"model": "base", "prompt": [1, 5], "max_tokens": 2})
        time.sleep(2.5)
        first.socket.shutdown(socket.SHUT_RDWR)  # what it had queued is cancelled, so the other's turn comes
        first.join()
        chunks = waiting.join()
    assert chunks and waiting.text.endswith("data: [DONE]\n\n")
    assert waiting.text.startswith(": ping\n\n"), waiting.text[:100]


def test_listeners_of_every_kind(tmp_path):
    path, port = str(tmp_path / "data.sock"), free_port()
    with Server(LLAMA, extra=["--listen", "unix:" + path, "--listen", f"[::1]:{port}", "--cors-origin", "*"]) as s:
        for family, address in ((socket.AF_UNIX, path), (socket.AF_INET6, ("::1", port))):
            with socket.socket(family) as c:
                c.settimeout(20)
                c.connect(address)
                c.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\nOrigin: http://a\r\nConnection: close\r\n\r\n")
                answer = b""
                while chunk := c.recv(4096):
                    answer += chunk
                assert b" 200 " in answer.splitlines()[0] and b"Access-Control-Allow-Origin: *\r\n" in answer
        assert os.stat(path).st_mode & 0o777 == 0o600
    assert not os.path.exists(path)


def test_pages_of_named_origins_may_ask():
    def head(s, method, origin):
        with socket.create_connection(("127.0.0.1", s.port), 20) as c:
            more = f"Origin: {origin}\r\n" if origin else ""
            c.sendall(f"{method} /v1/models HTTP/1.1\r\nHost: x\r\n{more}Connection: close\r\n\r\n".encode())
            answer = b""
            while chunk := c.recv(4096):
                answer += chunk
        return {k.lower(): v for k, v in (line.split(": ", 1) for line in answer.decode().split("\r\n\r\n")[0].split("\r\n")[1:])}
    with Server(LLAMA, extra=["--cors-origin", "https://a.example", "--cors-origin", "http://b.example:8000"]) as s:
        for method in ("GET", "OPTIONS"):
            for origin in ("https://a.example", "http://b.example:8000"):
                got = head(s, method, origin)
                assert got["access-control-allow-origin"] == origin and got["vary"] == "Origin"
            for origin in ("https://a.example.evil", "http://a.example", "http://b.example", "null", ""):
                got = head(s, method, origin)
                assert "access-control-allow-origin" not in got and got["vary"] == "Origin", origin
        assert "authorization" in head(s, "OPTIONS", "https://a.example")["access-control-allow-headers"].lower()


def test_a_start_that_can_not_succeed_says_why(tmp_path):
    for extra, adapters, says in ((["--listen", "256.1.1.1:1"], {}, "256.1.1.1"), ([], {"x": str(tmp_path)}, "adapter_config.json"),
                                  (["--adapter-root", str(tmp_path / "none")], {}, "none")):
        with Server(LLAMA, adapters, extra, wait=False) as s:
            assert s.process.wait(30) in (1, 2)
            assert says in s.log()
            s.process.returncode = 0


def test_draining_finishes_what_runs_and_refuses_what_comes():
    with Server(LLAMA, extra=["--threads", "1", "--sequences", "1", "--drain-timeout", "110s"]) as s:
        stream = Stream(s, slow_body(40))
        assert stream.begun.wait(30)
        s.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        answer = raw(s, "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert " 503 " in answer.splitlines()[0] and "draining" in answer
        assert s.get("/livez")[0] == 200
        body = '{"prompt":[1]}'
        answer = raw(s, f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}")
        assert " 503 " in answer.splitlines()[0] and "Retry-After: 1" in answer and "Connection: close" in answer
        chunks = stream.join()
        assert stream.text.endswith("data: [DONE]\n\n")
        assert sum(1 for c in chunks if c["choices"] and c["choices"][0]["finish_reason"] == "length") == 40
        assert s.process.wait(20) == 0


@pytest.mark.parametrize("how", ["deadline", "second signal"])
def test_draining_has_an_end(how):
    with Server(LLAMA, extra=["--threads", "1", "--sequences", "1", "--drain-timeout", "300ms" if how == "deadline" else "60s"]) as s:
        stream = Stream(s, slow_body(256, n=1))
        whole = Stream(s, slow_body(256))
        assert stream.begun.wait(30)
        begin = time.time()
        s.process.send_signal(signal.SIGTERM)
        if how != "deadline":
            time.sleep(0.1)
            s.process.send_signal(signal.SIGTERM)
        assert s.process.wait(20) == 0 and time.time() - begin < 10
        chunks = stream.join()
        whole.join()
        if "[DONE]" not in stream.text:  # it was cut: an error is its last word
            assert "error" in chunks[-1] and chunks[-1]["error"]["type"] == "service_unavailable_error"
