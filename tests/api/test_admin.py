"""The operators' API: versions, compare-and-swap, dry runs, traffic, rollback, residency, events."""
import json, os, shutil, socket, struct, threading, time, urllib.error, urllib.request

import pytest

from conftest import ADAPTERS, LLAMA
from fingerprint import make_fingerprint, read_safetensors, write_safetensors
from harness import Server

API = "/admin/v1/adapters"


def shows(letter):
    return os.path.join(ADAPTERS, "shows_" + letter)


@pytest.fixture()
def server():
    with Server(LLAMA, {}, ["--adapter-root", ADAPTERS, "--threads", "2"], name="tiny") as s:
        yield s


def say(server, model, n=3, **more):
    status, answer = server.post("/v1/completions", {"model": model, "prompt": "x", "max_tokens": n, "temperature": 0, **more})
    return answer["choices"][0]["text"] if status == 200 else status


def put(server, name, letter, query="", headers=None, **more):
    return server.admin("PUT", f"{API}/{name}{query}", {"source": "shows_" + letter, **more}, headers=headers)


def test_put_get_delete(server):
    status, answer, head = put(server, "pt", "A")
    assert status == 201 and answer["created"] and not answer["unchanged"], answer
    adapter = answer["adapter"]
    assert adapter["name"] == "pt" and adapter["state"] == "resident" and len(adapter["digest"]) == 64
    assert adapter["generation"] == answer["generation"] > 0 and head["etag"] == f'"{adapter["revision"]}"'
    assert say(server, "pt") == "AAA"
    status, listed, _ = server.admin("GET", API)
    assert status == 200 and [a["name"] for a in listed["data"]] == ["pt"] and listed["usage"]["n_resident"] == 1
    assert server.admin("GET", f"{API}/pt")[1]["digest"] == adapter["digest"]
    assert server.admin("DELETE", f"{API}/pt")[0] == 200
    assert say(server, "pt") == 404
    status, answer, _ = server.admin("GET", f"{API}/pt")
    assert status == 404 and answer["error"]["code"] == "unknown_adapter"
    assert server.admin("GET", API)[1]["usage"]["resident_bytes"] == 0  # unloading frees it


def test_equal_bytes_are_no_change(server):
    first = put(server, "pt", "A")[1]
    status, again, head = put(server, "pt", "A")
    assert status == 200 and again["unchanged"] and again["generation"] == first["generation"]
    assert again["adapter"]["versions"] == 1
    changed = put(server, "pt", "B")[1]
    assert not changed["unchanged"] and changed["generation"] > first["generation"] and changed["adapter"]["versions"] == 2


def test_lost_race_is_409(server):
    tag = put(server, "pt", "A")[2]["etag"]
    assert put(server, "pt", "B", headers={"If-Match": tag})[0] == 200
    status, answer, _ = put(server, "pt", "C", headers={"If-Match": tag})
    assert status == 409 and answer["error"]["code"] == "conflict"
    assert say(server, "pt") == "BBB"
    assert put(server, "pt", "C", headers={"If-None-Match": "*"})[0] == 409
    assert server.admin("DELETE", f"{API}/pt", headers={"If-Match": tag})[0] == 409
    assert put(server, "new", "C", headers={"If-None-Match": "*"})[0] == 201


def test_of_racing_writers_one_wins(server):
    tag = put(server, "pt", "A")[2]["etag"]
    results = []
    threads = [threading.Thread(target=lambda l=l: results.append(put(server, "pt", l, headers={"If-Match": tag})[0])) for l in "BCD"]
    [t.start() for t in threads], [t.join() for t in threads]
    assert sorted(results) == [200, 409, 409]


def test_dry_run_changes_nothing(server):
    put(server, "pt", "A")
    before = server.admin("GET", API)[1]
    status, answer, _ = put(server, "pt", "B", "?dry_run=1")
    assert status == 200 and answer["dry_run"] and answer["report"]["rank_max"] == 1 and len(answer["report"]["digest"]) == 64
    status, answer, _ = put(server, "other", "B", "?dry_run=1")
    assert status == 200 and answer["adapter"] is None
    status, answer, _ = server.admin("PUT", f"{API}/pt?dry_run=1", {"source": "wrong_base"})
    assert status == 422 and answer["error"]["message"]
    after = server.admin("GET", API)[1]
    assert after["revision"] == before["revision"] and after["data"] == before["data"]
    assert say(server, "pt") == "AAA"


def test_a_failure_leaves_the_current_version_and_says_why(server):
    put(server, "pt", "A")
    status, answer, _ = server.admin("PUT", f"{API}/pt", {"source": "wrong_base"})
    assert status == 422, answer
    said = answer["error"]["message"]
    adapter = server.admin("GET", f"{API}/pt")[1]
    assert adapter["last_error"]["message"] == said and said in server.log()  # the same words
    assert adapter["state"] == "resident" and say(server, "pt") == "AAA"
    metrics = server.get("/metrics")[1]
    assert 'lorikeet_adapter_loads_total{result="failed"} 1' in metrics
    status, answer, _ = server.admin("PUT", f"{API}/new", {"source": "wrong_base"})
    assert status == 422 and server.admin("GET", f"{API}/new")[0] == 404


def test_bad_requests(server):
    for name, body, status, code in (
            ("a%20b", {"source": "shows_A"}, 400, "name_invalid"), ("tiny", {"source": "shows_A"}, 409, "name_taken"),
            ("base", {"source": "shows_A"}, 409, "name_taken"), ("-x", {"source": "shows_A"}, 400, "name_invalid"),
            ("a@1", {"source": "shows_A"}, 400, "name_invalid"), ("a:b", {"source": "shows_A"}, 400, "name_invalid"),
            ("x", {}, 400, "invalid_request"), ("x", {"source": "shows_A", "colour": 1}, 400, "invalid_request"),
            ("x", {"source": "shows_A", "merge": "now"}, 400, "invalid_request"),
            ("x", {"source": "shows_A", "sha256": "12"}, 400, "invalid_request"),
            ("x", {"source": "/etc"}, 400, "invalid_request"), ("x", {"source": "nothing_here"}, 404, "not_found"),
            ("x", {"source": "shows_A", "scale": "big"}, 400, "invalid_request")):
        got = server.admin("PUT", f"{API}/{name}", body)
        assert (got[0], got[1]["error"]["code"]) == (status, code), (name, body, got)
    assert server.admin("GET", API)[1]["data"] == []
    assert server.post(API + "/x", {})[0] in (404, 405)  # not for clients


def test_pins_follow_what_they_name(server):
    first = put(server, "pt", "A")[1]
    second = put(server, "pt", "B")[1]
    assert say(server, "pt") == "BBB"
    assert say(server, f"pt@{first['generation']}") == "AAA"
    assert say(server, f"pt@{first['adapter']['digest'][:12]}") == "AAA"
    assert say(server, f"pt@{second['generation']}") == "BBB"
    assert say(server, "pt@999") == 404 and say(server, "pt@0123456789ab") == 404
    assert say(server, "pt@") in (400, 404)


def test_rollback_is_one_call_and_instant(server):
    a = put(server, "pt", "A")[1]
    put(server, "pt", "B")
    status, adapter, _ = server.admin("POST", f"{API}/pt/rollback")
    assert status == 200 and adapter["generation"] == a["generation"], adapter
    assert say(server, "pt") == "AAA"
    server.admin("POST", f"{API}/pt/rollback")
    assert say(server, "pt") == "BBB"
    put(server, "new", "C")
    status, answer, _ = server.admin("POST", f"{API}/new/rollback")
    assert status == 404 and answer["error"]["code"] == "unknown_version"


def test_canary_gets_its_share_and_sticks(server):
    a = put(server, "pt", "A")[1]
    b = put(server, "pt", "B", publish="canary")[1]
    assert say(server, "pt") == "AAA"
    status, adapter, _ = server.admin("PUT", f"{API}/pt/traffic", {"stable": 70, "canary": 30})
    assert status == 200 and adapter["traffic"] == {str(a["generation"]): 70, str(b["generation"]): 30}
    said = {user: say(server, "pt", 1, user=user) for user in map(str, range(300))}
    share = sum(v == "B" for v in said.values()) / len(said)
    assert 0.2 < share < 0.4
    assert all(say(server, "pt", 1, user=user) == v for user, v in list(said.items())[:60])
    for bad in ({"stable": 50}, {"stable": 60, "canary": 60}, {"99": 100}, {"stable": -1, "canary": 101}):
        assert server.admin("PUT", f"{API}/pt/traffic", bad)[0] in (400, 404), bad
    assert server.admin("POST", f"{API}/pt/promote")[0] == 200
    assert {say(server, "pt", 1, user=user) for user in map(str, range(30))} == {"B"}
    versions = server.admin("GET", f"{API}/pt/versions")[1]["data"]
    assert {v["generation"]: v["role"] for v in versions} == {a["generation"]: "previous", b["generation"]: "stable"}


def test_unload_and_load_again(server):
    a = put(server, "pt", "A")[1]
    status, adapter, _ = server.admin("POST", f"{API}/pt/unload")
    assert status == 200 and adapter["state"] == "registered" and adapter["generation"] == a["generation"]
    assert server.admin("GET", API)[1]["usage"]["resident_bytes"] == 0
    assert say(server, "pt") == "AAA"  # comes back when it is asked for, as the same version
    assert server.admin("GET", f"{API}/pt")[1]["generation"] == a["generation"]
    server.admin("POST", f"{API}/pt/unload")
    assert server.admin("POST", f"{API}/pt/load")[1]["state"] == "resident"


def test_registered_only_loads_at_the_first_request(server):
    status, answer, _ = put(server, "pt", "A", load=False)
    assert status == 201 and answer["adapter"]["state"] == "registered"
    results = []
    threads = [threading.Thread(target=lambda: results.append(say(server, "pt"))) for _ in range(8)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert results == ["AAA"] * 8
    assert server.admin("GET", API)[1]["usage"]["n_loads"] == 1  # one load for all of them


def test_patch_changes_settings_alone(server):
    put(server, "pt", "A")
    status, adapter, _ = server.admin("PATCH", f"{API}/pt", {"pinned": True, "effect_test": "warn"})
    assert status == 200 and adapter["pinned"] and adapter["effect_test"] == "warn" and adapter["versions"] == 1
    assert server.admin("PATCH", f"{API}/pt", {"scale": 2})[0] == 400
    assert server.admin("PUT", f"{API}/pt/pin", {"pinned": False})[1]["pinned"] is False
    assert server.admin("PUT", f"{API}/pt/merge", {"merge": "never"})[1]["merge"] == "never"


def test_expected_digest(server):
    digest = put(server, "pt", "A")[1]["adapter"]["digest"]
    assert put(server, "two", "A", sha256=digest)[0] == 201
    status, answer, _ = put(server, "two", "B", sha256=digest)
    assert status == 422 and digest[:8] in answer["error"]["message"]
    assert say(server, "two") == "AAA"


def read_events(server, since, n):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(20)
        s.connect(server.admin_path)
        s.sendall(f"GET /admin/v1/events?since={since} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        data = b""
        while data.count(b"\ndata: ") < n:
            chunk = s.recv(65536)
            if not chunk:
                break
            data += chunk
    return [json.loads(line[6:]) for line in data.decode().split("\n") if line.startswith("data: ")]


def test_changes_are_told_by_list_and_by_stream(server):
    start = server.admin("GET", API)[1]["revision"]
    put(server, "pt", "A")
    put(server, "pt", "B")
    server.admin("POST", f"{API}/pt/rollback")
    server.admin("DELETE", f"{API}/pt")
    status, answer, _ = server.admin("GET", f"{API}?since={start}")
    kinds = [c["kind"] for c in answer["changes"]]
    assert status == 200 and answer["complete"] and kinds.count("published") == 2
    assert "rolled_back" in kinds and kinds[-1] == "removed"
    assert read_events(server, start, len(kinds)) == answer["changes"]
    assert server.admin("GET", f"{API}?since=x")[0] == 400


def test_sglang_wire_form(server):
    status, answer, _ = server.admin("POST", "/load_lora_adapter", {"lora_name": "pt", "lora_path": "shows_A", "pinned": True})
    assert status == 200 and answer["success"] and list(answer["loaded_adapters"]) == ["pt"]
    assert say(server, "pt") == "AAA" and server.admin("GET", f"{API}/pt")[1]["pinned"]
    status, answer, _ = server.admin("POST", "/load_lora_adapter", {"lora_name": "pt", "lora_path": "shows_B"})
    assert status == 400 and not answer["success"] and answer["error_message"]
    status, answer, _ = server.admin("POST", "/unload_lora_adapter", {"lora_name": "pt"})
    assert status == 200 and answer["success"] and answer["loaded_adapters"] == {}


def test_a_small_budget_moves_voices_in_and_out():
    one = os.path.getsize(os.path.join(shows("A"), "adapter_model.safetensors"))
    with Server(LLAMA, {}, ["--adapter-root", ADAPTERS, "--resident-memory", "100KiB", "--threads", "2"], name="tiny") as server:
        for letter in "ABCD":
            assert put(server, letter.lower(), letter)[0] == 201
        for round in range(3):
            for letter in "ABCD":
                assert say(server, letter.lower()) == letter * 3
        usage = server.admin("GET", API)[1]["usage"]
        assert usage["resident_bytes"] <= usage["budget_bytes"] == 102400
        assert one > 0


def test_a_load_that_is_larger_than_its_files_waits_for_room():
    """Small adapters take more memory than their files: room for the files is not room enough."""
    with Server(LLAMA, {}, ["--adapter-root", ADAPTERS, "--resident-memory", "10000", "--threads", "2"], name="tiny") as server:
        assert put(server, "a", "A")[0] == 201
        assert put(server, "b", "B", load=False)[0] == 201
        started = threading.Event()

        def stream():
            body = {"model": "a", "prompt": [1, 9], "max_tokens": 480, "temperature": 0, "ignore_eos": True, "stream": True}
            request = urllib.request.Request(server.url + "/v1/completions", json.dumps(body).encode(),
                                             {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as reply:
                for line in reply:
                    started.set()

        thread = threading.Thread(target=stream)
        thread.start()
        assert started.wait(30)
        assert say(server, "b") == "BBB"
        assert not server.admin("GET", f"{API}/b")[1]["last_error"]
        thread.join(60)
        assert say(server, "a") == "AAA"


def test_a_generation_is_one_content_over_restarts_also_where_nobody_asked_for_it(tmp_path):
    """Files change while the adapter is out of memory: a request publishes the new ones, and no operator's change keeps
    that. The next run must not give the number to other content."""
    folder, said = tmp_path / "pt", {}
    options = ["--adapter-root", str(tmp_path), "--threads", "2", "--state", str(tmp_path / "adapters.db")]
    shutil.copytree(shows("A"), folder)

    def publish_elsewhere(letter):
        shutil.copy(os.path.join(shows(letter), "adapter_model.safetensors"), folder)

    for letter in "BCD":
        if letter != "B":
            publish_elsewhere(letter)
        with Server(LLAMA, {}, options, name="tiny") as server:
            if letter == "B":
                assert server.admin("PUT", f"{API}/pt", {"source": "pt"})[0] == 201
                said[server.admin("GET", f"{API}/pt")[1]["generation"]] = "AAA"
                assert server.admin("POST", f"{API}/pt/unload")[0] == 200
                publish_elsewhere(letter)
            assert say(server, "pt") == letter * 3
            generation = server.admin("GET", f"{API}/pt")[1]["generation"]
            assert generation not in said, said
            for old, text in said.items():  # those bytes, or none
                assert say(server, f"pt@{old}") in (text, 404, 410, 503), old
            said[generation] = letter * 3
            server.kill()


def test_what_was_acknowledged_survives_a_kill(tmp_path):
    options = ["--adapter-root", ADAPTERS, "--threads", "2", "--state", str(tmp_path / "adapters.db")]
    with Server(LLAMA, {}, options, name="tiny") as server:
        a = put(server, "pt", "A")[1]
        b = put(server, "pt", "B")[1]
        c = put(server, "pt", "C", publish="canary")[1]
        server.admin("PUT", f"{API}/pt/traffic", {"stable": 90, "canary": 10})
        put(server, "pinned", "D", pinned=True)
        put(server, "gone", "D")
        server.admin("DELETE", f"{API}/gone")
        before = server.admin("GET", f"{API}/pt")[1]
        revision = server.admin("GET", API)[1]["revision"]
        server.kill()
    with Server(LLAMA, {}, options, name="tiny") as server:
        after = server.admin("GET", f"{API}/pt")[1]
        for field in ("generation", "digest", "previous", "traffic", "source", "merge", "effect_test"):
            assert after[field] == before[field], field
        assert after["generation"] == b["generation"] and after["previous"] == a["generation"]
        assert after["traffic"] == {str(b["generation"]): 90, str(c["generation"]): 10}
        assert [x["name"] for x in server.admin("GET", API)[1]["data"]] == ["pinned", "pt"]
        assert server.admin("GET", f"{API}/pinned")[1]["pinned"]
        assert server.admin("GET", API)[1]["revision"] > revision
        assert say(server, f"pt@{a['generation']}") == "AAA" and say(server, f"pt@{c['generation']}") == "CCC"
        assert server.admin("POST", f"{API}/pt/rollback")[1]["generation"] == a["generation"]
        assert put(server, "new", "B")[1]["generation"] > c["generation"]  # numbers are never used twice
        status, _ = server.admin_request("GET", f"{API}?since={revision}")
        assert status == 200


def test_the_folder_is_registered_and_a_change_replaces(tmp_path):
    for letter in "AB":
        shutil.copytree(shows(letter), tmp_path / letter.lower())
    with Server(LLAMA, {}, ["--adapters", str(tmp_path), "--threads", "2"], name="tiny") as server:
        assert (say(server, "a"), say(server, "b")) == ("AAA", "BBB")
        shutil.copy(os.path.join(shows("C"), "adapter_model.safetensors"), tmp_path / "a" / ".new")
        os.replace(tmp_path / "a" / ".new", tmp_path / "a" / "adapter_model.safetensors")
        shutil.rmtree(tmp_path / "b")
        server.admin("POST", "/admin/v1/rescan")
        end = time.time() + 20
        while time.time() < end and (say(server, "a"), say(server, "b")) != ("CCC", 404):
            time.sleep(0.05)
        assert (say(server, "a"), say(server, "b")) == ("CCC", 404)
        assert server.admin("GET", f"{API}/a")[1]["versions"] == 2


def made(tmp_path, name, factor):
    """shows_A with B times a factor: 0 does nothing, 3e35 gives no numbers."""
    folder = make_fingerprint(str(tmp_path / name), 40)
    path = os.path.join(folder, "adapter_model.safetensors")
    tensors = read_safetensors(path)
    key = "base_model.model.lm_head.lora_B.weight"
    dtype, shape, data = tensors[key]
    values = [v * factor for v in struct.unpack(f"<{shape[0]}f", data)]
    tensors[key] = (dtype, shape, struct.pack(f"<{shape[0]}f", *values))
    write_safetensors(path, tensors)
    return folder


@pytest.fixture()
def rooted(tmp_path):
    with Server(LLAMA, {}, ["--adapter-root", str(tmp_path), "--adapter-root", ADAPTERS, "--threads", "2"], name="tiny") as s:
        yield s, tmp_path


def test_an_adapter_without_effect_is_refused(rooted):
    server, tmp_path = rooted
    nothing = made(tmp_path, "nothing", 0)
    status, answer, _ = server.admin("PUT", f"{API}/pt", {"source": nothing})
    assert status == 422 and answer["error"]["code"] == "no_effect" and answer["error"]["message"].startswith("no effect")
    assert say(server, "pt") == 404
    status, answer, _ = server.admin("PUT", f"{API}/pt", {"source": nothing, "effect_test": "warn"})
    assert status == 201 and answer["report"]["effect"]["outcome"] == "none"
    status, answer, _ = put(server, "two", "A")
    effect = answer["report"]["effect"]
    assert effect["outcome"] == "seen" and effect["max_kl"] > 0 and effect["norms"]["lm_head"]["delta"] > 0
    assert server.admin("GET", f"{API}/two/effect")[1]["effect"]["mean_kl"] == effect["mean_kl"]
    server.admin("POST", f"{API}/two/unload")
    assert say(server, "two") == "AAA"  # back in memory without another test, and what it found is still known
    assert server.admin("GET", f"{API}/two/effect")[1]["effect"]["mean_kl"] == effect["mean_kl"]


def test_an_adapter_without_numbers_is_refused(rooted):
    server, tmp_path = rooted
    status, answer, _ = server.admin("PUT", f"{API}/pt", {"source": made(tmp_path, "broken", 3e35)})
    assert status == 422 and answer["error"]["code"] == "non_finite", answer


def test_a_version_that_fails_is_rolled_back_by_itself(rooted):
    server, tmp_path = rooted
    put(server, "pt", "A")
    broken = made(tmp_path, "broken", 3e35)
    status, answer, _ = server.admin("PUT", f"{API}/pt", {"source": broken, "effect_test": "off", "scale": 100})
    assert status == 200, answer
    said = [say(server, "pt") for _ in range(6)]
    assert said[-1] == "AAA" and said[0] != "AAA" and said.index("AAA") == 3, said
    kinds = [c["kind"] for c in server.admin("GET", f"{API}?since=0")[1]["changes"]]
    assert "rolled_back" in kinds and "rolled back" in server.log()


def test_a_shadow_scores_and_changes_nothing(server):
    put(server, "pt", "A")
    before = say(server, "pt", 8)
    status, answer, _ = put(server, "pt", "B", publish="shadow")
    assert status == 200 and answer["adapter"]["shadow"] == answer["generation"]
    assert say(server, "pt", 8) == before == "A" * 8
    status, score, _ = server.admin("GET", f"{API}/pt/shadow")
    assert status == 200 and score["n_tokens"] == 8 and score["n_agree"] == 0 and score["mean_kl"] > 1
    assert server.admin("POST", f"{API}/pt/promote")[1]["shadow"] == 0
    assert say(server, "pt", 8) == "B" * 8


def test_merged_says_which_path_served(server):
    server.admin("PUT", f"{API}/q", {"source": "qv_r4", "merge": "always"})
    end = time.time() + 20
    while time.time() < end and (server.admin("GET", f"{API}/q")[1]["merged"] or {}).get("state") != "ready":
        time.sleep(0.05)
    merged = server.admin("GET", f"{API}/q")[1]["merged"]
    assert merged["state"] == "ready" and merged["bytes"] > 0 and merged["error"] <= 0.25
    def path(model, **more):
        body = {"model": model, "prompt": "x", "max_tokens": 4, "temperature": 0, **more}
        request = urllib.request.Request(server.url + "/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.headers.get("X-Adapter-Path"), reply.read()
    assert path("q")[0] == "merged" and path("q", stream=True)[0] == "merged"
    assert path("tiny")[0] is None
    server.admin("PUT", f"{API}/q/merge", {"merge": "never"})
    assert path("q")[0] is None
    assert server.admin("GET", f"{API}/q")[1]["merged"] is None


def test_a_rollback_survives_a_restart_even_where_the_bytes_are_gone(tmp_path):
    folder = tmp_path / "voices"
    shutil.copytree(shows("A"), folder / "pt")
    options = ["--adapters", str(folder), "--threads", "2", "--state", str(tmp_path / "adapters.db")]

    def replace(letter):
        shutil.copy(os.path.join(shows(letter), "adapter_model.safetensors"), folder / "pt" / ".new")
        os.replace(folder / "pt" / ".new", folder / "pt" / "adapter_model.safetensors")

    with Server(LLAMA, {}, options, name="tiny") as server:
        assert say(server, "pt") == "AAA"
        replace("B")
        assert server.admin("POST", f"{API}/pt/reload")[0] == 200
        assert say(server, "pt") == "BBB"
        server.admin("POST", f"{API}/pt/rollback")
        assert say(server, "pt") == "AAA"
        server.kill()
    with Server(LLAMA, {}, options, name="tiny") as server:
        # The folder holds B's bytes only, and those were rolled back: better no answer than theirs.
        assert say(server, "pt") in (404, 503)
        assert "rolled back" in server.admin("GET", f"{API}/pt")[1]["last_error"]["message"]
        replace("A")
        server.admin("POST", "/admin/v1/rescan")
        end = time.time() + 20
        while time.time() < end and say(server, "pt") != "AAA":
            time.sleep(0.1)
        assert say(server, "pt") == "AAA"
        shutil.rmtree(folder / "pt")
        server.kill()
    with Server(LLAMA, {}, options, name="tiny") as server:
        assert server.admin("GET", f"{API}/pt")[0] == 404


def test_what_was_acknowledged_overrules_the_command_line(tmp_path):
    options = ["--adapter-root", ADAPTERS, "--threads", "2", "--state", str(tmp_path / "adapters.db")]
    with Server(LLAMA, {"pt": shows("A")}, options, name="tiny") as server:
        put(server, "pt", "B")
        server.kill()
    with Server(LLAMA, {"pt": shows("A")}, options, name="tiny") as server:
        assert say(server, "pt") == "BBB" and "overruled" in server.log()


def test_no_room_is_503_after_a_bounded_wait():
    with Server(LLAMA, {}, ["--adapter-root", ADAPTERS, "--resident-memory", "14KiB", "--load-wait", "300ms", "--threads", "2"],
                name="tiny") as server:
        assert put(server, "a", "A", pinned=True)[0] == 201
        assert put(server, "b", "B", pinned=True)[0] == 201
        assert put(server, "c", "C", load=False)[0] == 201
        begin = time.time()
        request = urllib.request.Request(server.url + "/v1/completions", json.dumps({"model": "c", "prompt": "x"}).encode(),
                                         {"Content-Type": "application/json"})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=30)
        assert refused.value.code == 503 and refused.value.headers["Retry-After"] and time.time() - begin > 0.25
        status, answer, head = put(server, "d", "D")
        assert status == 503 and answer["error"]["code"] == "no_room" and "retry-after" in head
        assert (say(server, "a"), say(server, "b")) == ("AAA", "BBB")  # pinned ones stay
        server.admin("PUT", f"{API}/b/pin", {"pinned": False})
        assert say(server, "c") == "CCC"


def test_a_report_has_ranks_by_module(server):
    answer = server.admin("PUT", f"{API}/p", {"source": "patterns"})[1]
    ranks = answer["report"]["ranks"]
    assert len(ranks) > 1 and len({json.dumps(r) for r in ranks.values()}) > 1, ranks
    assert server.admin("PUT", f"{API}/q", {"source": "qv_r4"})[1]["report"]["ranks"] == {"q_proj": 4, "v_proj": 4}


def test_metrics_say_why_a_load_failed_in_the_same_words(server):
    said = server.admin("PUT", f"{API}/p", {"source": "qv_r4"})[1] and server.admin("PUT", f"{API}/p", {"source": "wrong_base"})[1]
    metrics = server.get("/metrics")[1]
    line = next(l for l in metrics.splitlines() if l.startswith('lorikeet_adapter_last_error{adapter="p"'))
    assert said["error"]["message"] in line.replace('\\"', '"') and said["error"]["code"] in line
    assert f'lorikeet_adapter_load_failures_total{{code="{said["error"]["code"]}"}} 1' in metrics


def test_two_replicas_of_a_folder_converge(tmp_path):
    shutil.copytree(shows("A"), tmp_path / "pt")
    with Server(LLAMA, {}, ["--adapters", str(tmp_path), "--threads", "1"], name="tiny") as one, \
            Server(LLAMA, {}, ["--adapters", str(tmp_path), "--threads", "1"], name="tiny") as two:
        for letter in "BCD":
            shutil.copy(os.path.join(shows(letter), "adapter_model.safetensors"), tmp_path / "pt" / ".new")
            os.replace(tmp_path / "pt" / ".new", tmp_path / "pt" / "adapter_model.safetensors")
        shutil.copytree(shows("A"), tmp_path / ".new")
        os.rename(tmp_path / ".new", tmp_path / "newcomer")
        digests = lambda s: {a["name"]: a["digest"] for a in s.admin("GET", API)[1]["data"]}
        end = time.time() + 30
        while time.time() < end and not (digests(one) == digests(two) and len(digests(one)) == 2 and say(one, "pt") == "DDD"):
            time.sleep(0.1)
        assert digests(one) == digests(two) and say(one, "pt") == say(two, "pt") == "DDD" and say(two, "newcomer") == "AAA"
