"""What survives a restart: desired state in --state FILE, and how it meets the command line and the folder."""
import os, resource, shutil, sqlite3, threading, time

import pytest

from conftest import ADAPTERS, LLAMA
from harness import Server

API = "/admin/v1/adapters"


def shows(letter):
    return os.path.join(ADAPTERS, "shows_" + letter)


@pytest.fixture()
def serve(tmp_path):
    """serve(adapters of the command line, more options): a server with this test's state file"""
    def start(adapters=None, *extra, **more):
        return Server(LLAMA, adapters or {}, ["--adapter-root", ADAPTERS, "--threads", "1", "--state",
                                              str(tmp_path / "adapters.db"), *extra], name="tiny", **more)
    return start


def say(server, model, **more):
    status, answer = server.post("/v1/completions", {"model": model, "prompt": "x", "max_tokens": 2, "temperature": 0, **more})
    return answer["choices"][0]["text"] if status == 200 else status


def put(server, name, letter, **more):
    status, answer, _ = server.admin("PUT", f"{API}/{name}", {"source": "shows_" + letter, **more})
    assert status in (200, 201), answer
    return answer


def get(server, name):
    return server.admin("GET", f"{API}/{name}")[1]


def log_of(tmp_path):
    with sqlite3.connect(tmp_path / "adapters.db") as db:
        return db.execute("SELECT operation, name, old_generation, new_generation, outcome, by_whom FROM audit").fetchall()


def test_everything_that_operators_did_comes_back(serve, tmp_path):
    with serve() as server:
        first = put(server, "pt", "A")
        second = put(server, "pt", "B", pinned=True)
        put(server, "can", "A")
        canary = put(server, "can", "C", publish="canary")["generation"]
        assert server.admin("PUT", f"{API}/can/traffic", {"stable": 50, "canary": 50})[0] == 200
        assert server.admin("PUT", f"{API}/mix", {"blend": "pt+0.5*can"})[0] == 201
        put(server, "gone", "D")
        assert server.admin("DELETE", f"{API}/gone")[0] == 200
        assert server.admin("PATCH", f"{API}/can", {"merge": "auto"})[0] == 200
        assert server.admin("PUT", f"{API}/bad", {"source": "../../models/llama/f32"})[0] >= 400
        before = server.admin("GET", API)[1]
    with serve() as server:
        after = server.admin("GET", API)[1]
        assert [a["name"] for a in after["data"]] == ["can", "mix", "pt"]
        for old, new in zip(before["data"], after["data"]):
            for field in ("generation", "digest", "previous", "source", "blend", "scale", "pinned", "merge", "traffic"):
                assert new[field] == old[field], (old["name"], field)
        assert after["revision"] > before["revision"]  # no revision means two things
        assert get(server, "pt")["state"] == "resident" and get(server, "can")["state"] == "resident"
        assert say(server, "pt") == "BB" and say(server, f"pt@{first['generation']}") == "AA"
        assert {say(server, "can", user=f"u{i}") for i in range(40)} == {"AA", "CC"}
        assert say(server, f"can@{canary}") == "CC"
        assert say(server, "mix") in ("BB", "AA", "CC") and say(server, "gone") == 404
        assert server.admin("POST", f"{API}/pt/rollback", {})[1]["generation"] == first["generation"]
        assert put(server, "new", "D")["generation"] > canary  # numbers aren't given twice
    with serve() as server:
        assert get(server, "pt")["generation"] == first["generation"] and say(server, "pt") == "AA"
        assert get(server, "pt")["previous"] == second["generation"]
    lines = [line[:5] for line in log_of(tmp_path)]
    one, two = first["generation"], second["generation"]
    assert lines[:2] == [("load", "pt", 0, one, "ok"), ("load", "pt", one, two, "ok")]
    assert ("rollback", "pt", two, one, "ok") in lines and ("settings", "can", canary - 1, canary - 1, "ok") in lines
    assert any(line[:2] == ("remove", "gone") and line[3] == 0 for line in lines)
    assert all(line[5].startswith(f"uid {os.getuid()}, pid ") for line in log_of(tmp_path))


def test_a_refused_load_is_in_the_log_of_changes(serve, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "adapter_config.json").write_text("{")
    with serve({}, "--adapter-root", str(tmp_path)) as server:
        status, answer, _ = server.admin("PUT", f"{API}/x", {"source": str(tmp_path / "broken")})
        assert status == 422
        put(server, "pt", "A")
    (operation, name, old, new, outcome, _), kept = log_of(tmp_path)
    assert (operation, name, old, new) == ("load", "x", 0, 0) and outcome == answer["error"]["message"]
    assert kept[1] == "pt"


def test_what_was_changed_wins_over_the_same_command_line(serve):
    with serve({"fixed": shows("A")}) as server:
        assert say(server, "fixed") == "AA"
        put(server, "fixed", "B")
    with serve({"fixed": shows("A")}) as server:
        assert say(server, "fixed") == "BB" and "--adapter is overruled" in server.log()
        assert server.admin("PATCH", f"{API}/fixed", {"pinned": True})[0] == 200
    with serve({"fixed": shows("C")}) as server:  # somebody edited it since: now it says something new
        assert say(server, "fixed") == "CC"
        assert get(server, "fixed")["pinned"] is True
        assert server.admin("POST", f"{API}/fixed/rollback", {})[0] == 200
        assert say(server, "fixed") == "BB"
    with serve({"fixed": shows("C")}) as server:
        assert say(server, "fixed") == "BB"  # the rollback isn't undone


def test_a_kept_version_without_files_keeps_nobody_from_starting(serve, tmp_path):
    shutil.copytree(shows("B"), tmp_path / "files")
    with serve({"fixed": shows("A")}, "--adapter-root", str(tmp_path)) as server:
        assert server.admin("PUT", f"{API}/fixed", {"source": str(tmp_path / "files"), "pinned": True})[0] == 200
        put(server, "other", "D")
    shutil.rmtree(tmp_path / "files")
    with serve({"fixed": shows("A")}, "--adapter-root", str(tmp_path)) as server:
        assert say(server, "other") == "DD"
        assert say(server, "fixed") == 404 and 'adapter not loaded adapter="fixed"' in server.log()
        put(server, "fixed", "C")
        assert say(server, "fixed") == "CC"


def test_numbers_of_versions_mean_the_same_bytes_in_the_next_run(serve, tmp_path):
    folder = tmp_path / "folder"
    shutil.copytree(shows("A"), folder / "z")
    with serve({"fixed": shows("B")}, "--adapters", str(folder)) as server:
        assert say(server, "fixed") == "BB" and say(server, "z") == "AA"
        numbers = {name: get(server, name)["generation"] for name in ("fixed", "z")}
    shutil.copytree(shows("C"), folder / "a")
    with serve({"fixed": shows("B")}, "--adapters", str(folder)) as server:
        assert say(server, "a") == "CC" and get(server, "a")["generation"] > max(numbers.values())
        for name, number in numbers.items():
            assert get(server, name)["generation"] == number and say(server, f"{name}@{number}") == say(server, name)


def test_names_of_the_folder_that_went_meanwhile_are_gone(serve, tmp_path):
    folder = tmp_path / "folder"
    for name, letter in (("stays", "A"), ("goes", "B")):
        shutil.copytree(shows(letter), folder / name)

    def settled(server, names):
        end = time.time() + 20
        while time.time() < end and [a["name"] for a in server.admin("GET", API)[1]["data"]] != names:
            time.sleep(0.02)
        assert [a["name"] for a in server.admin("GET", API)[1]["data"]] == names

    with serve({}, "--adapters", str(folder)) as server:
        settled(server, ["goes", "stays"])
        for name in ("stays", "goes"):
            assert server.admin("PUT", f"{API}/{name}/pin", {"pinned": True})[0] == 200
    shutil.rmtree(folder / "goes")
    with serve({}, "--adapters", str(folder)) as server:
        settled(server, ["stays"])
        assert get(server, "stays")["pinned"] is True and say(server, "stays") == "AA"


def test_one_server_a_file(serve, tmp_path):
    with serve() as first:
        put(first, "pt", "A")
        with serve(wait=False) as second:
            assert second.process.wait(20) == 1
            assert "adapters.db is in use by another server" in second.log()
            second.killed = True
        assert say(first, "pt") == "AA"


@pytest.mark.parametrize("content, words", [(b"my notes " * 100, "not a database"), (None, "malformed")])
def test_a_bad_file_stops_the_start_and_stays_as_it_is(serve, tmp_path, content, words):
    path = tmp_path / "adapters.db"
    with serve() as server:
        put(server, "pt", "A")
    content = content or path.read_bytes()[:8192]
    path.write_bytes(content)
    with serve(wait=False) as server:
        assert server.process.wait(20) == 1
        assert str(path) in server.log() and words in server.log() and "restore a copy" in server.log()
        server.killed = True
    assert path.read_bytes() == content


def test_what_the_disk_has_no_room_for_is_not_acknowledged(serve, tmp_path):
    with serve() as server:
        put(server, "pt", "A")
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        for method, path, body in (("PUT", "pt", {"source": "shows_B"}), ("PUT", "mix", {"blend": "pt"}),
                                   ("PUT", "pt/pin", {"pinned": True}), ("DELETE", "mix", None)):
            status, answer, _ = server.admin(method, f"{API}/{path}", body)
            assert status == 500 and answer["error"]["code"] == "not_persisted", (path, status, answer)
            assert "adapters.db" in answer["error"]["message"]
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        put(server, "de", "C")
        server.kill()
    with serve() as server:
        assert [a["name"] for a in server.admin("GET", API)[1]["data"]] == ["de", "pt"]
        assert say(server, "pt") == "AA" and get(server, "pt")["pinned"] is False


def test_the_voice_of_requests_that_name_none_is_in_the_log_of_changes(serve):
    with serve({"left": shows("A"), "right": shows("B")}) as server:
        for scales, voice in (([0, 0.5], "0.5*right"), ([1, 1], "left+right"), ([0, 0], "tiny")):
            body = [{"id": i, "scale": x} for i, x in enumerate(scales)]
            assert server.admin("POST", "/lora-adapters", body)[0] == 200
            line = server.admin("GET", "/admin/v1/audit?limit=1")[1]["data"][0]
            assert (line["operation"], line["object"], line["outcome"]) == ("default voice", voice, "ok") and line["by"][:4] == "uid "
        assert server.admin("POST", "/lora-adapters", [{"id": 77, "scale": 1}])[0] == 400
        assert server.admin("GET", "/admin/v1/audit?limit=1")[1]["data"][0] == line
        assert [a["name"] for a in server.admin("GET", API)[1]["data"]] == ["left", "right"]


def test_a_removal_tells_its_own_revision(serve):
    """Not that of what others changed before its answer was written: who compares revisions would take it for the later change."""
    with serve() as server:
        done = threading.Event()

        def change_others():
            while not done.is_set():
                server.admin("PUT", f"{API}/other", {"source": "shows_A"})
                server.admin("DELETE", f"{API}/other")
        threads = [threading.Thread(target=change_others) for _ in range(3)]
        for t in threads:
            t.start()
        told, start = [], server.admin("GET", API)[1]["revision"]
        for i in range(40):
            put(server, f"n{i}", "B")
            told.append((f"n{i}", server.admin("DELETE", f"{API}/n{i}")[1]["revision"]))
        done.set()
        for t in threads:
            t.join()
        changes = server.admin("GET", f"{API}?since={start}")[1]
        assert changes["complete"] and told == [(c["name"], c["revision"]) for c in changes["changes"]
                                                if c["kind"] == "removed" and c["name"] != "other"]


def test_without_a_file_the_log_says_so():
    with Server(LLAMA, {}, ["--threads", "1"], name="tiny") as server:
        assert server.log().count("what operators change is forgotten at the end") == 1
