"""The adapters folder of a running server: what is put, replaced and taken away there, without a signal."""
import os
import shutil
import time

from conftest import ADAPTERS, LLAMA
from harness import Server


def says(server, voice):
    """What a voice's tokens show, or the status."""
    status, answer = server.post("/v1/completions", {"model": voice, "prompt": [1, 9], "max_tokens": 4, "temperature": 0})
    return answer["choices"][0]["text"] if status == 200 else status


def comes_to(server, voice, wanted, seconds=30):
    end = time.time() + seconds
    while time.time() < end:
        if says(server, voice) == wanted:
            return True
        time.sleep(0.05)
    return False


def publish(folder, letter, name):
    """Written elsewhere, renamed into place."""
    shutil.copytree(os.path.join(ADAPTERS, "shows_" + letter), os.path.join(folder, ".new"))
    target, old = os.path.join(folder, name), os.path.join(folder, ".old")
    if os.path.exists(target):
        os.rename(target, old)
    os.rename(os.path.join(folder, ".new"), target)
    shutil.rmtree(old, ignore_errors=True)


def test_put_replaced_and_taken_away(tmp_path):
    folder = str(tmp_path)
    publish(folder, "A", "pt")
    with Server(LLAMA, {}, ["--adapters", folder]) as server:
        assert says(server, "pt") == "AAAA"
        publish(folder, "B", "pt")
        assert comes_to(server, "pt", "BBBB")
        publish(folder, "C", "de")
        assert comes_to(server, "de", "CCCC") and says(server, "pt") == "BBBB"
        weights = os.path.join(folder, "de", "adapter_model.safetensors")
        shutil.copy(os.path.join(ADAPTERS, "shows_D", "adapter_model.safetensors"), weights + ".tmp")
        os.rename(weights + ".tmp", weights)
        assert comes_to(server, "de", "DDDD")
        shutil.rmtree(os.path.join(folder, "de"))
        assert comes_to(server, "de", 404) and says(server, "pt") == "BBBB"


def test_half_written_is_waited_for_and_breaks_nothing(tmp_path):
    folder = str(tmp_path)
    publish(folder, "A", "pt")
    with Server(LLAMA, {}, ["--adapters", folder]) as server:
        data = open(os.path.join(ADAPTERS, "shows_B", "adapter_model.safetensors"), "rb").read()
        with open(os.path.join(folder, "pt", "adapter_model.safetensors"), "wb", buffering=0) as f:
            for i in range(4):
                f.write(data[len(data) * i // 4:len(data) * (i + 1) // 4])
                assert says(server, "pt") == "AAAA"
                time.sleep(0.8)
        assert comes_to(server, "pt", "BBBB")
        assert "adapter not loaded" not in server.log() and " ERROR " not in server.log()


def test_it_can_be_left_to_signals(tmp_path):
    import signal
    folder = str(tmp_path)
    with Server(LLAMA, {}, ["--adapters", folder, "--adapters-watch", "false"]) as server:
        publish(folder, "A", "pt")
        time.sleep(2)
        assert says(server, "pt") == 404
        server.process.send_signal(signal.SIGHUP)
        assert comes_to(server, "pt", "AAAA")
