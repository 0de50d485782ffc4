"""Changes of one name that meet: what one operator was told holds, whatever else was on its way. A source that answers when it is
told to keeps a load at its beginning for as long as the test wants."""
import concurrent.futures
import os
import signal
import socket
import threading
import time

import pytest

from conftest import ADAPTERS, LLAMA
from harness import Server
from source_server import World
from test_remote_voices import files, say

API = "/admin/v1/adapters"


class Gate(World):
    """Each request waits until `opened` is set."""

    def __init__(self):
        super().__init__({**files("/a/", "A"), **files("/b/", "B")})
        self.asked_for, self.opened = threading.Event(), threading.Event()

    def answer(self, h, act):
        self.asked_for.set()
        self.opened.wait(30)
        super().answer(h, act)

    def close(self):
        self.asked_for.clear()
        self.opened.clear()


@pytest.fixture(params=["kept", "forgotten"])
def meet(request, tmp_path):
    """(server, gate, later): later(f, *args) runs it beside the test."""
    state = ["--state", str(tmp_path / "adapters.db")] if request.param == "kept" else []
    with Gate() as gate, concurrent.futures.ThreadPoolExecutor(8) as pool:
        with Server(LLAMA, {}, ["--source-allow", gate.url + "/", "--source-cache", str(tmp_path / "cache"), "--threads", "1",
                                "--adapter-root", ADAPTERS, *state], name="tiny") as server:
            yield server, gate, pool.submit
            gate.opened.set()


def put(server, name, **body):
    return server.admin("PUT", f"{API}/{name}", body)


def get(server, name):
    status, answer, _ = server.admin("GET", f"{API}/{name}")
    return answer if status == 200 else status


def is_queued(server, name, voice_asks):
    """The request for a cold voice has been read, and its load waits behind another of its name."""
    time.sleep(0.2)
    return not voice_asks.done()


def hold(server, gate, later, name):
    """A dry run of the name, held at its source: all its other loads wait."""
    gate.close()
    dry = later(server.admin, "PUT", f"{API}/{name}?dry_run=1", {"source": gate.url + "/b/"})
    assert gate.asked_for.wait(10)
    return dry


def test_a_request_that_waits_for_a_removed_voice_does_not_bring_it_back(meet):
    server, gate, later = meet
    assert put(server, "pt", source="shows_A", load=False)[0] == 201
    dry = hold(server, gate, later, "pt")
    asks = later(say, server, "pt")
    assert is_queued(server, "pt", asks)
    reload = later(server.admin, "POST", f"{API}/pt/reload")
    time.sleep(0.1)
    assert server.admin("DELETE", f"{API}/pt")[0] == 200
    gate.opened.set()
    assert asks.result() == 404 and dry.result()[0] == 200 and reload.result()[0] == 404
    assert get(server, "pt") == 404 and say(server, "pt") == 404


def test_a_failed_load_takes_nobody_elses_name_away(meet):
    server, gate, later = meet
    assert put(server, "left", source="shows_C")[0] == 201
    for body in ({"blend": "left"}, {"source": "shows_D", "load": False}):
        gate.close()
        load = later(put, server, "pt", source=gate.url + "/nowhere/")
        assert gate.asked_for.wait(10)
        status, answer, _ = put(server, "pt", **body)
        assert status in (200, 201), answer
        gate.opened.set()
        assert load.result()[0] in (404, 502)
        assert get(server, "pt")["source"] == body.get("source", "")
        assert say(server, "pt") == ("CCC" if "blend" in body else "DDD")
        assert server.admin("DELETE", f"{API}/pt")[0] == 200
    gate.close()
    load = later(put, server, "new", source=gate.url + "/nowhere/")  # but its own goes with it
    assert gate.asked_for.wait(10)
    gate.opened.set()
    assert load.result()[0] in (404, 502) and get(server, "new") == 404


def test_the_first_load_of_a_name_does_not_undo_what_was_wished_meanwhile(meet):
    server, gate, later = meet
    for body, shown in (({"source": "shows_D", "load": False}, "DDD"), ({"blend": "left"}, "CCC")):
        assert put(server, "left", source="shows_C")[0] in (200, 201)
        gate.close()
        assert put(server, "pt", source=gate.url + "/a/", load=False)[0] == 201
        asks = later(say, server, "pt")
        assert gate.asked_for.wait(10)
        assert put(server, "pt", **body)[0] == 200
        gate.opened.set()
        assert asks.result() == (409 if "blend" in body else shown)  # whoever waited gets what is wished now
        assert get(server, "pt")["source"] == body.get("source", "") and say(server, "pt") == shown
        assert server.admin("DELETE", f"{API}/pt")[0] == 200


def test_if_match_holds_for_what_waits_for_bytes(meet):
    """A rollback whose version has to come back first: the condition is looked at again when it has."""
    server, gate, later = meet
    assert put(server, "pt", source="shows_A")[0] == 201 and put(server, "pt", source="shows_B")[0] == 200
    assert server.admin("POST", f"{API}/pt/unload")[0] == 200
    dry = hold(server, gate, later, "pt")
    revision = get(server, "pt")["revision"]
    back = later(server.admin, "POST", f"{API}/pt/rollback", None, headers={"If-Match": f'"{revision}"'})
    time.sleep(0.2)
    assert not back.done()
    assert server.admin("PATCH", f"{API}/pt", {"pinned": True})[0] == 200
    gate.opened.set()
    status, answer, _ = back.result()
    assert status == 409 and answer["error"]["code"] == "conflict"
    assert dry.result()[0] == 200 and say(server, "pt") == "BBB"
    assert server.admin("POST", f"{API}/pt/rollback")[0] == 200 and say(server, "pt") == "AAA"


def test_a_name_that_one_registers_and_another_removes(meet):
    """The answer is written when the name is on the disk, and may be gone by then."""
    server, _, later = meet
    assert put(server, "left", source="shows_A")[0] == 201
    done = threading.Event()

    def remove():
        while not done.is_set():
            server.admin("DELETE", f"{API}/pt")
    removers = [later(remove) for _ in range(2)]
    for i in range(150):
        status, answer, _ = put(server, "pt", **({"blend": "left"} if i % 2 else {"source": "shows_B", "load": False}))
        assert status in (200, 201) and (answer["adapter"] is None or answer["adapter"]["name"] == "pt")
    done.set()
    assert all(r.result() is None for r in removers)


def test_readers_of_events_do_not_hold_up_the_end():
    with Server(LLAMA, {}, ["--threads", "1"], name="tiny") as server:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(30)
            s.connect(server.admin_path)
            s.sendall(b"GET /admin/v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200" in s.recv(4096)
            begin = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            rest = b""
            while part := s.recv(4096):
                rest += part
            assert rest.endswith(b"0\r\n\r\n") and server.process.wait(10) == 0
            assert time.monotonic() - begin < 10  # of 30 s that running requests would have
