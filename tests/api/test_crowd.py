"""Many at once: mixed voices, idle connections, readers that stop, clients that leave at every phase."""
import concurrent.futures
import json
import socket
import time

from conftest import LLAMA, VOICES
from harness import Server, ask_ids

MIX = ["tiny", *VOICES]


def body(model, n, **more):
    return json.dumps({"model": model, "prompt": [1, 20 + n % 50, 30], "max_tokens": 12 + n, "temperature": 0,
                       "ignore_eos": True, **more}).encode()


def send(server, payload, head=b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"):
    s = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    s.sendall(head + b"Content-Length: " + str(len(payload)).encode() + b"\r\n\r\n" + payload)
    return s


def read_stream(s):
    """All data of a chunked event stream up to [DONE]."""
    data = b""
    while b"[DONE]" not in data:
        piece = s.recv(65536)
        assert piece, data[-300:]
        data += piece
    return data


def running(server):
    text = server.admin_request("GET", "/metrics")[1]
    values = [float(line.split()[-1]) for line in text.splitlines()
              if line.startswith(("lorikeet_generations_running{", "lorikeet_generations_waiting{"))]
    assert values
    return sum(values)


def settle(server):
    end = time.time() + 20
    while time.time() < end and running(server) != 0:
        time.sleep(0.05)
    assert running(server) == 0


def test_sixteen_mixed_requests_equal_each_alone(server):
    prompts = [[1] + [(7 * i + k) % 380 + 4 for k in range(3 + 9 * i % 60)] for i in range(16)]
    jobs = [(MIX[i % len(MIX)], prompts[i], 10 + 3 * i) for i in range(16)]
    alone = [ask_ids(server, *job) for job in jobs]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for _ in range(3):
            assert list(pool.map(lambda job: ask_ids(server, *job), jobs)) == alone


def test_sixty_four_streams(server):
    sockets = [send(server, body(MIX[i % len(MIX)], i % 40, stream=True)) for i in range(64)]
    for s in sockets:
        text = read_stream(s)
        assert b"HTTP/1.1 200" in text and text.count(b"[DONE]") == 1
        s.close()
    settle(server)


def test_five_hundred_idle_connections_cost_nobody(server):
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(500)]
    kept = [send(server, body("tiny", 1)) for _ in range(20)]
    for s in kept:
        assert b"200" in s.recv(65536)
    assert server.get("/health")[0] == 200
    assert ask_ids(server, "shows_A", [1, 5], 4)
    for s in idle + kept:
        s.close()


def test_a_reader_that_stops_is_bounded_and_others_go_on():
    with Server(LLAMA, VOICES, ["--write-timeout", "1s"], name="tiny") as server:
        stuck = []
        for i in range(4):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            s.connect(("127.0.0.1", server.port))
            payload = json.dumps({"model": "tiny", "prompt": [[1, 9]] * 8, "max_tokens": 480, "temperature": 0,
                                  "ignore_eos": True, "logprobs": 5, "stream": True}).encode()
            s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
                      + str(len(payload)).encode() + b"\r\n\r\n" + payload)
            stuck.append(s)
        for _ in range(5):
            assert len(ask_ids(server, "qv_r4", [1, 7], 8)) == 8
        settle(server)
        for s in stuck:
            s.close()


def test_clients_that_leave_at_every_phase(server):
    payload = body("qv_r4", 5, stream=True)
    whole = (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
             + str(len(payload)).encode() + b"\r\n\r\n" + payload)
    for cut in (1, 10, 60, len(whole) - len(payload) - 1, len(whole) - 5, len(whole)):
        for _ in range(4):
            s = socket.create_connection(("127.0.0.1", server.port))
            s.sendall(whole[:cut])
            s.close()
    long = json.dumps({"model": "tiny", "prompt": [1, 2], "max_tokens": 490, "ignore_eos": True, "stream": False}).encode()
    for stream, wait in ((False, 0.0), (False, 0.05), (True, 0.0), (True, 0.05)):
        payload = long if not stream else long.replace(b'"stream": false', b'"stream": true')
        s = send(server, payload)
        time.sleep(wait)
        s.close()
    s = send(server, long.replace(b'"stream": false', b'"stream": true'))
    s.recv(200)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, not a goodbye
    s.close()
    settle(server)
    assert len(ask_ids(server, "qv_r4", [1, 7], 8)) == 8
