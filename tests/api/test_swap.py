"""Voices replaced, added and removed while requests run. Each token of the `shows_X` adapters is the letter X."""
import json
import os
import threading

from harness import ask_ids
from conftest import ADAPTERS, LLAMA, VOICES
from harness import Server


def load(server, letter, name="shown", **more):
    return server.admin_request("POST", "/v1/load_lora_adapter", {
        "lora_name": name, "lora_path": os.path.join(ADAPTERS, "shows_" + letter), **more})


def test_in_flight_finishes_on_the_old_version_and_the_next_speaks_the_new():
    with Server(LLAMA, {"shown": os.path.join(ADAPTERS, "shows_A")}, ["--adapter-root", ADAPTERS]) as server:
        first_token, texts = threading.Event(), []

        def stream():
            import urllib.request
            body = {"model": "shown", "prompt": [1, 9], "max_tokens": 480, "temperature": 0, "ignore_eos": True, "stream": True}
            request = urllib.request.Request(server.url + "/v1/completions", json.dumps(body).encode(),
                                             {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as reply:
                for line in reply:
                    if line.startswith(b"data: {"):
                        texts.append(json.loads(line[6:])["choices"][0]["text"])
                        first_token.set()

        thread = threading.Thread(target=stream)
        thread.start()
        assert first_token.wait(30)
        status, text = load(server, "B", load_inplace=True)
        assert status == 200, text
        now = server.post("/v1/completions", {"model": "shown", "prompt": [1, 9], "max_tokens": 6, "temperature": 0})[1]
        thread.join(60)
        assert now["choices"][0]["text"] == "BBBBBB"
        assert set("".join(texts)) == {"A"} and len("".join(texts)) == 480


def test_two_hundred_replacements_under_load_mix_nothing():
    with Server(LLAMA, {**VOICES, "shown": os.path.join(ADAPTERS, "shows_A")}, ["--adapter-root", ADAPTERS]) as server:
        prompt, done, problems = [1, 30, 31], threading.Event(), []
        quiet = ask_ids(server, "qv_r4", prompt, 20)

        def ask(voice):
            while not done.is_set():
                ids = ask_ids(server, voice, prompt, 20)
                if (ids != quiet) if voice == "qv_r4" else len(set(ids)) != 1:
                    problems.append((voice, ids))

        threads = [threading.Thread(target=ask, args=(v,)) for v in ("shown", "shown", "qv_r4")]
        for t in threads:
            t.start()
        for i in range(200):
            status, text = load(server, "ABCD"[i % 4], load_inplace=True)
            assert status == 200, text
        done.set()
        for t in threads:
            t.join(60)
        assert problems == []


def test_add_list_remove(server):
    status, text = load(server, "C", "visitor")
    assert status == 200 and "visitor" in text
    assert load(server, "C", "visitor")[0] == 400  # taken, unless load_inplace
    status, text = server.admin_request("GET", "/v1/lora_adapters")
    row = next(a for a in json.loads(text)["data"] if a["lora_name"] == "visitor")
    assert row["generation"] >= 1 and row["rank_max"] == 1 and len(row["digest"]) >= 16
    assert server.post("/v1/completions", {"model": "visitor", "prompt": "x", "max_tokens": 3, "temperature": 0})[1][
        "choices"][0]["text"] == "CCC"
    assert server.admin_request("POST", "/v1/unload_lora_adapter", {"lora_name": "visitor"})[0] == 200
    assert server.post("/v1/completions", {"model": "visitor", "prompt": "x"})[0] == 404
    assert server.admin_request("POST", "/v1/unload_lora_adapter", {"lora_name": "visitor"})[0] == 404


def test_a_failed_replacement_leaves_the_current_version(server, tmp_path):
    for path in ("../../../models/llama/f32", "/etc", "no_such_adapter", "../gemma3/qv_r4"):
        status, text = server.admin_request("POST", "/v1/load_lora_adapter", {
            "lora_name": "shows_A", "lora_path": path, "load_inplace": True})
        assert status in (400, 403, 404), (path, status, text)
        assert json.loads(text)["error"]["message"] if "error" in text else text
    for name in ("", "a/b", "../x", "-x", "x" * 65):
        assert load(server, "A", name)[0] == 400
    assert server.post("/v1/completions", {"model": "shows_A", "prompt": "x", "max_tokens": 2, "temperature": 0})[1][
        "choices"][0]["text"] == "AA"


def test_loading_is_for_operators_only(server):
    assert server.post("/v1/load_lora_adapter", {"lora_name": "x", "lora_path": "shows_A"})[0] in (403, 404)
    assert server.post("/v1/unload_lora_adapter", {"lora_name": "qv_r4"})[0] in (403, 404)


def test_sighup_scans_the_folder_again(tmp_path):
    import shutil, signal, time
    shutil.copytree(os.path.join(ADAPTERS, "shows_A"), tmp_path / "shown")
    with Server(LLAMA, {}, ["--adapters", str(tmp_path)]) as server:
        def say(voice):
            status, answer = server.post("/v1/completions", {"model": voice, "prompt": "x", "max_tokens": 2, "temperature": 0})
            return answer["choices"][0]["text"] if status == 200 else status
        assert say("shown") == "AA"
        shutil.copy(os.path.join(ADAPTERS, "shows_B", "adapter_model.safetensors"), tmp_path / "shown")
        shutil.copytree(os.path.join(ADAPTERS, "shows_D"), tmp_path / "newcomer")
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken" / "adapter_config.json").write_text("{")
        server.process.send_signal(signal.SIGHUP)
        end = time.time() + 20
        while time.time() < end and (say("shown"), say("newcomer")) != ("BB", "DD"):
            time.sleep(0.05)
        assert (say("shown"), say("newcomer"), say("broken")) == ("BB", "DD", 404)
