"""Starts with a kept file of packed weights: written while requests are served, mapped by the next start, made anew when
it doesn't fit, and no way to end a server that has it mapped."""
import glob, os, re, shutil, time

import pytest

from conftest import ADAPTERS, LLAMA
from harness import Server


def ask(server, voice="base"):
    status, reply = server.post("/v1/completions", {"model": voice, "prompt": "hello", "max_tokens": 8, "logprobs": 2,
                                                     "temperature": 0})
    assert status == 200, reply
    return reply["choices"][0]


def wait_for(server, text, seconds=60):
    end = time.time() + seconds
    while text not in server.log():
        assert time.time() < end, server.log()
        time.sleep(0.02)


def way(server):
    return re.search(r' ready .* weights="(\w+)"', server.log()).group(1)


@pytest.fixture
def place(tmp_path):
    """A model of its own, a folder for packed weights, and how a server is started on them."""
    model, cache = str(tmp_path / "model"), str(tmp_path / "cache" / "deeper")
    shutil.copytree(LLAMA, model)
    return model, cache, ["--pack-cache", cache, "--quant", "q8_0", "--threads", "2"]


def test_second_start_maps_what_the_first_kept(place):
    model, cache, options = place
    voices = {"qv_r4": os.path.join(ADAPTERS, "qv_r4")}
    with Server(model, voices, options) as s:
        first = ask(s), ask(s, "qv_r4")  # served, whether the file is written yet or not
        assert way(s) == "packed"
        wait_for(s, "packed weights kept")
        assert (ask(s), ask(s, "qv_r4")) == first
    kept, = glob.glob(cache + "/*")
    assert kept.endswith(".q8_0.lkpack") and os.stat(kept).st_mode & 0o022 == 0
    before = os.stat(kept)
    with Server(model, voices, options) as s:
        assert way(s) in ("mapped", "read")
        assert (ask(s), ask(s, "qv_r4")) == first
        metrics = s.get("/metrics")[1]
        assert "lorikeet_start_seconds" in metrics and 'part="weights"' in metrics
    assert os.stat(kept).st_mtime_ns == before.st_mtime_ns and os.listdir(cache) == [os.path.basename(kept)]


def test_cut_and_replaced_while_it_serves(place):
    model, cache, options = place
    with Server(model, None, options) as s:
        first = ask(s)
        wait_for(s, "packed weights kept")
    kept, = glob.glob(cache + "/*")
    with Server(model, None, options) as s:
        assert way(s) in ("mapped", "read")
        os.truncate(kept, 0)  # waits until the server has a copy of its own
        assert ask(s) == first
    with Server(model, None, options) as s:  # an empty file is no reason not to start
        assert way(s) == "packed" and "weights were packed anew" in s.log()
        assert ask(s) == first
        wait_for(s, "packed weights kept")
    with Server(model, None, options) as s:
        assert way(s) in ("mapped", "read")
        with open(kept + ".new", "wb") as f:
            f.write(b"something else")
        os.replace(kept + ".new", kept)
        assert ask(s) == first
        os.remove(kept)
        assert ask(s) == first


def test_another_model_in_its_place(place):
    model, cache, options = place
    with Server(model, None, options) as s:
        first = ask(s)
        wait_for(s, "packed weights kept")
    weights = os.path.join(model, "model.safetensors")
    with open(weights, "r+b") as f:
        f.seek(-2048, os.SEEK_END)
        f.write(b"\x3c" * 2048)
    with Server(model, None, options) as s:
        assert way(s) == "packed" and "files have changed" in s.log()
        changed = ask(s)
        wait_for(s, "packed weights kept")
    with Server(model, None, options) as s:
        assert way(s) in ("mapped", "read") and ask(s) == changed
    with Server(model, None, ["--pack-cache", "off", "--quant", "q8_0", "--threads", "2"]) as s:
        assert way(s) == "packed" and ask(s) == changed
    assert changed != first


def test_small_models_leave_nothing_behind(place):
    model, _, _ = place
    before = sorted(os.listdir(model))
    with Server(model, None, ["--threads", "2"]) as s:
        ask(s)
        time.sleep(0.5)
    assert sorted(os.listdir(model)) == before


def test_nowhere_to_keep_it(place, tmp_path):
    model, _, _ = place
    (tmp_path / "file").write_text("no folder")
    with Server(model, None, ["--pack-cache", str(tmp_path / "file"), "--threads", "2"]) as s:
        wait_for(s, "packed weights are not kept")
        assert ask(s)["text"] is not None
