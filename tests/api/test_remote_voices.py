"""Voices whose source is a URL: PUT, reload, restart and refusals, against a server of files on loopback."""
import os
import threading
import time

import pytest

from conftest import ADAPTERS, LLAMA
from harness import Server
from source_server import World, sha256

API = "/admin/v1/adapters"
NAMES = ("adapter_config.json", "adapter_model.safetensors")


def files(folder, letter):
    return {folder + n: open(os.path.join(ADAPTERS, "shows_" + letter, n), "rb").read() for n in NAMES}


@pytest.fixture
def world():
    with World({**files("/pt/", "A"), **files("/de/", "B")}) as w:
        yield w


def serve(world, tmp_path, *more, adapters=None, stall="2s", timeout="20s"):
    return Server(LLAMA, adapters or {}, ["--source-allow", world.url + "/", "--source-cache", str(tmp_path / "cache"), "--threads", "2",
                                          "--adapter-root", ADAPTERS, "--source-stall-timeout", stall, "--source-timeout", timeout, *more])


def say(server, voice):
    status, answer = server.post("/v1/completions", {"model": voice, "prompt": "x", "max_tokens": 3, "temperature": 0})
    return answer["choices"][0]["text"] if status == 200 else status


def put(server, name, source, **more):
    return server.admin("PUT", f"{API}/{name}", {"source": source, **more})


def test_a_url_becomes_a_voice_and_a_reload_sees_the_change(world, tmp_path):
    with serve(world, tmp_path, timeout="2s") as server:
        status, answer, _ = put(server, "pt", world.url + "/pt/")
        assert status == 201 and say(server, "pt") == "AAA", answer
        assert answer["adapter"]["source"] == world.url + "/pt/"
        status, answer, _ = put(server, "pt", world.url + "/pt/")
        assert status == 200 and answer["unchanged"]
        world.files.update(files("/pt/", "C"))
        status, answer, _ = server.admin("POST", f"{API}/pt/reload")
        assert status == 200 and say(server, "pt") == "CCC", answer
        # The hub that was loaded from is gone: what is there goes on, and a reload serves the cache's copy.
        world.script["/pt/adapter_config.json"] = [("status", 503)] * 100
        status, answer, _ = server.admin("POST", f"{API}/pt/reload")
        assert status == 200 and say(server, "pt") == "CCC", answer


def test_refusals_have_their_codes_and_change_nothing(world, tmp_path):
    with serve(world, tmp_path, "--source-limit", "10MiB") as server:
        assert put(server, "pt", world.url + "/pt/")[0] == 201
        weights = sha256(world.files["/pt/adapter_model.safetensors"])
        world.files.update({"/big/adapter_config.json": b"{}", "/big/adapter_model.safetensors": bytes(11 << 20)})
        for source, status, code in (("https://elsewhere.example/a/", 403, "source_not_allowed"),
                                     ("file:///etc/passwd", 400, "invalid_request"),
                                     (world.url + "/none/", 502, "source_unreachable"), (world.url + "/big/", 413, "too_large"),
                                     (world.url + "/pt/#sha256=" + "0" * 64, 422, "sha256_differs")):
            got, answer, _ = put(server, "pt", source)
            assert (got, answer["error"]["code"]) == (status, code), (source, answer)
        assert say(server, "pt") == "AAA"
        assert put(server, "pinned", world.url + "/pt/#sha256=" + weights)[0] == 201


def test_a_source_that_hangs_holds_up_nobody_else(world, tmp_path):
    for i in range(6):
        world.files.update(files(f"/slow{i}/", "D"))
        world.script[f"/slow{i}/adapter_config.json"] = [("wait", 6)]
    with serve(world, tmp_path, stall="15s") as server:
        answers = []
        threads = [threading.Thread(target=lambda i=i: answers.append(put(server, f"slow{i}", f"{world.url}/slow{i}/")[:2]))
                   for i in range(6)]
        for t in threads:
            t.start()
        end = time.time() + 5
        while time.time() < end and sum(bool(world.asked(f"/slow{i}/adapter_config.json")) for i in range(6)) < 4:
            time.sleep(0.02)  # as many as download at once; which ones is the threads' affair
        assert put(server, "here", "shows_A")[0] == 201  # a local load
        assert say(server, "here") == "AAA"
        assert not any(name.startswith("/slow") and name.endswith("safetensors") for name, _ in world.requests)  # before them all
        for t in threads:
            t.join()
        assert [status for status, _ in answers] == [201] * 6, answers
        assert [say(server, f"slow{i}") for i in range(6)] == ["DDD"] * 6


def test_an_adapter_of_the_command_line_and_a_restart_while_the_source_is_down(world, tmp_path):
    adapters = {"pt": world.url + "/pt/"}
    with serve(world, tmp_path, adapters=adapters, timeout="2s") as server:
        assert say(server, "pt") == "AAA"
    world.script["/pt/adapter_config.json"] = [("status", 500)] * 100
    with serve(world, tmp_path, adapters=adapters, timeout="2s") as server:
        assert say(server, "pt") == "AAA"


def test_the_server_ends_while_a_download_hangs(world, tmp_path):
    world.script["/pt/adapter_config.json"] = [("wait", 60)]
    with serve(world, tmp_path, "--drain-timeout", "1s", stall="50s") as server:
        threading.Thread(target=put, args=(server, "pt", world.url + "/pt/"), daemon=True).start()
        while not world.asked("/pt/adapter_config.json"):
            time.sleep(0.02)
        assert server.stop() == 0  # or it would be killed after half a minute
