"""`lorikeet adapters` as operators and their scripts use it, against a real server."""
import json, os, pty, re, shutil, signal, socket, subprocess, time

import pytest

from conftest import ADAPTERS, LLAMA
from harness import BINARY, Server


def shows(letter):
    return os.path.join(ADAPTERS, "shows_" + letter)


@pytest.fixture(scope="module")
def server():
    with Server(LLAMA, {"fixed": shows("A")}, ["--adapter-root", ADAPTERS, "--threads", "2"], name="tiny") as s:
        yield s


def cli(server, *arguments, code=0, env=None, cwd=None):
    """Standard output of a call that ends with `code`; of a failed one, standard error."""
    command = [BINARY, "adapters", *map(str, arguments)]
    if server:
        command += ["--admin", "unix:" + server.admin_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd,
                          env={k: v for k, v in {**os.environ, **(env or {})}.items() if v is not None})
    assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
    return done.stderr if code else done.stdout


def row(server, name):
    for line in cli(server, "list").splitlines()[1:]:
        if line.split()[0] == name:
            return line
    return None


def say(server, model):
    status, answer = server.post("/v1/completions", {"model": model, "prompt": "x", "max_tokens": 3, "temperature": 0})
    return answer["choices"][0]["text"] if status == 200 else status


def test_publish_roll_back_remove(server):
    assert cli(server, "load", "pt", shows("A")).startswith("pt: loaded, generation ")
    assert say(server, "pt") == "AAA"
    assert cli(server, "load", "pt", shows("A")).startswith("pt: unchanged, ")
    first = json.loads(cli(server, "show", "pt", "--json"))
    assert first["state"] == "resident" and len(first["digest"]) == 64
    assert cli(server, "load", "pt", shows("B"), "--pin", "--quiet") == ""
    assert say(server, "pt") == "BBB"
    assert row(server, "pt").split()[:2] == ["pt", "resident"] and " yes " in row(server, "pt")
    assert cli(server, "rollback", "pt").startswith("pt: rolled back, generation %d," % first["generation"])
    assert say(server, "pt") == "AAA"
    shown = cli(server, "show", "pt")
    assert re.search(r"^digest +" + first["digest"], shown, re.M)
    assert re.search(r"^%d +%s +stable +yes" % (first["generation"], first["digest"][:12]), shown, re.M), shown
    cli(server, "unpin", "pt")
    assert " yes " not in row(server, "pt")
    assert cli(server, "remove", "pt") == "pt: removed\n"
    assert row(server, "pt") is None and say(server, "pt") == 404
    assert cli(server, "show", "pt", code=1) == 'lorikeet: adapter "pt" does not exist (unknown_adapter)\n'


def test_canary_traffic_promote(server):
    cli(server, "load", "can", shows("A"))
    text = cli(server, "load", "can", shows("B"), "--canary", 25)
    assert re.match(r"can: loaded generation (\d+) as canary; stable: generation (\d+), .*traffic ", text), text
    shares = json.loads(cli(server, "traffic", "can", "--json"))
    assert sorted(shares.values()) == [25, 75]
    said = {say(server, "can") for _ in range(3)} | {
        server.post("/v1/completions", {"model": "can", "prompt": "x", "max_tokens": 1, "temperature": 0, "user": f"u{i}"})[1]
        ["choices"][0]["text"] for i in range(60)}
    assert said <= {"AAA", "BBB", "A", "B"} and {"A", "B"} <= said
    assert "canary" in cli(server, "show", "can")
    cli(server, "traffic", "can", "stable=100", "canary=0")
    assert say(server, "can") == "AAA"
    assert "promoted" in cli(server, "promote", "can")
    assert say(server, "can") == "BBB"
    cli(server, "remove", "can")


def test_memory_and_settings(server):
    cli(server, "load", "mem", shows("C"))
    assert "out of memory" in cli(server, "unload", "mem") and row(server, "mem").split()[1] == "registered"
    assert "in memory" in cli(server, "load", "mem") and row(server, "mem").split()[1] == "resident"
    cli(server, "merge", "mem", "auto")
    assert json.loads(cli(server, "show", "mem", "--json"))["merge"] == "auto"
    assert "unchanged" in cli(server, "reload", "mem")
    assert cli(server, "rescan") is not None
    cli(server, "load", "mix", "--blend", "fixed+0.5*mem")
    assert json.loads(cli(server, "show", "mix", "--json"))["blend"]
    assert "mix" in cli(server, "list", "--quiet").split()
    cli(server, "remove", "mix")
    cli(server, "remove", "mem")


def test_refusals_and_their_exit_codes(server, tmp_path):
    before = cli(server, "list")
    report = cli(server, "load", "dry", shows("D"), "--dry-run")
    assert "nothing has changed" in report and "rank_max" in report and row(server, "dry") is None
    cli(server, "load", "race", shows("A"))
    revision = json.loads(cli(server, "show", "race", "--json"))["revision"]
    cli(server, "pin", "race", "--if-match", revision)
    assert "(conflict)" in cli(server, "pin", "race", "--if-match", revision, code=1)
    assert "(conflict)" in cli(server, "load", "race", shows("B"), "--new", code=1)
    assert "expected " + "0" * 64 in cli(server, "load", "race", shows("B"), "--sha256", "0" * 64, code=1)
    assert say(server, "race") == "AAA"
    assert cli(server, "load", "race", tmp_path, code=1)
    for name in ("a/b", "a@b", "a:b", "../x", ""):
        assert "must begin with a letter or digit" in cli(server, "load", name, shows("A"), code=2)
    assert cli(server, "load", "tiny", shows("A"), code=1)
    cli(server, "remove", "race")
    assert cli(server, "list") == before
    for line in ("frobnicate", "show", "list --pin", "traffic x stable=5", "load x --scale 1"):
        assert cli(server, *line.split(), code=2).startswith("lorikeet: ")
    failed = subprocess.run([BINARY, "adapters", "show", "nobody", "--json", "--admin", "unix:" + server.admin_path],
                            capture_output=True, text=True)
    assert failed.returncode == 1 and json.loads(failed.stdout)["error"]["code"] == "unknown_adapter"


def test_where_the_server_is(server, tmp_path):
    nobody = {"LORIKEET_ADMIN": None, "XDG_RUNTIME_DIR": str(tmp_path)}
    assert "no server answers" in cli(None, "list", code=3, env=nobody)
    assert "--admin" in cli(None, "list", code=3, env={**nobody, "XDG_RUNTIME_DIR": None})
    assert cli(None, "list", code=3, env={**nobody, "LORIKEET_ADMIN": "unix:/no/such"})
    assert cli(None, "list", code=3, env={**nobody, "LORIKEET_ADMIN": "127.0.0.1:1"})
    assert cli(None, "list", code=2, env={**nobody, "LORIKEET_ADMIN": "nonsense"})
    assert "fixed" in cli(None, "list", env={**nobody, "LORIKEET_ADMIN": "unix:" + server.admin_path})
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "lorikeet-1.sock"))
    dead.close()
    os.symlink(server.admin_path, tmp_path / "lorikeet-2.sock")
    assert "fixed" in cli(None, "list", env=nobody)  # the dead one doesn't count
    os.symlink(server.admin_path, tmp_path / "lorikeet-3.sock")
    assert "several servers" in cli(None, "list", code=2, env=nobody)
    # The clients' listener isn't the operators'.
    assert cli(None, "list", code=1, env={**nobody, "LORIKEET_ADMIN": f"127.0.0.1:{server.port}"})


def test_a_relative_path_is_the_callers(server):
    assert "loaded" in cli(server, "load", "rel", "./shows_D", cwd=ADAPTERS)
    assert say(server, "rel") == "DDD"
    assert json.loads(cli(server, "show", "rel", "--json"))["source"] == shows("D")
    cli(server, "remove", "rel")


def test_watch_goes_on_behind_a_restart(tmp_path):
    out = tmp_path / "watched"
    extra = ["--adapter-root", ADAPTERS, "--threads", "1", "--state", str(tmp_path / "adapters.db")]
    with Server(LLAMA, {}, extra, name="tiny") as first:
        with open(out, "w") as to:
            watch = subprocess.Popen([BINARY, "adapters", "watch", "--json", "--admin", "unix:" + first.admin_path],
                                     stdout=to, stderr=subprocess.PIPE, text=True)

        def wait_for(predicate):
            end = time.time() + 20
            while time.time() < end and not predicate(seen()):
                time.sleep(0.02)
            assert predicate(seen()), out.read_text()

        def seen():
            return [json.loads(line) for line in out.read_text().splitlines()]

        def change_until_seen(name):
            """The watcher may still be on its way to the server."""
            end, n = time.time() + 20, len(seen())
            while time.time() < end and len(seen()) == n:
                cli(first, "load", name, shows("A"), "--quiet")
                cli(first, "remove", name, "--quiet")
                time.sleep(0.05)

        change_until_seen("hello")
        cli(first, "load", "pt", shows("B"))
        wait_for(lambda rows: any(r.get("kind") == "published" and r["name"] == "pt" for r in rows))
        first.kill()
        os.unlink(first.admin_path)
        # The next server at the same place.
        second = Server(LLAMA, {}, extra, name="tiny")
        second.command[second.command.index("--admin-listen") + 1] = "unix:" + first.admin_path
        with second:
            second.admin_path = first.admin_path
            end = time.time() + 20
            while time.time() < end and not any(r.get("name") == "de" for r in seen()):
                cli(second, "load", "de", shows("C"), "--quiet")
                cli(second, "unload", "de", "--quiet")
                time.sleep(0.05)
            rows = seen()
            assert any(r.get("name") == "de" for r in rows), rows
            revisions = [r["revision"] for r in rows]
            assert revisions == sorted(revisions), revisions
            assert say(second, "pt") == "BBB"
            watch.send_signal(signal.SIGINT)
            watch.wait(10)
            assert "connecting again" in watch.stderr.read()
            watch.stderr.close()


def test_progress_is_for_terminals_only(server, tmp_path):
    """On a terminal the line is written over while it takes long; what remains is the result."""
    leader, follower = pty.openpty()
    done = subprocess.run([BINARY, "adapters", "load", "term", shows("A"), "--admin", "unix:" + server.admin_path],
                          stdout=follower, stderr=follower, timeout=60)
    os.close(follower)
    text = os.read(leader, 65536).decode()
    os.close(leader)
    assert done.returncode == 0 and re.search(r"term: loaded, generation \d+", text.split("\x1b[K")[-1])
    cli(server, "remove", "term")
