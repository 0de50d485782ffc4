"""Tenants and keys: who may ask, for which voices, how much; what operators and restarts see of it."""
import concurrent.futures
import http.client
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import threading
import time

import pytest

from conftest import ADAPTERS, LLAMA
from harness import BINARY, Server

SHOWN = {f"shows_{x}": os.path.join(ADAPTERS, f"shows_{x}") for x in "ABCD"}
PROMPT = [1, 30, 31, 32, 50]
ROOT = ["--adapter-root", ADAPTERS, "--threads", "1"]


def bearer(key):
    return {"Authorization": "Bearer " + key}


def ask(server, method, path, body=None, headers=None):
    """(status, bytes, the reply's headers in lower case)"""
    c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    text = json.dumps(body) if body is not None else None
    c.request(method, path, text, {"Content-Type": "application/json", **(headers or {})})
    r = c.getresponse()
    data = r.read()
    c.close()
    return r.status, data, {k.lower(): v for k, v in r.getheaders()}


def speak(server, key, n=4, **body):
    """(status, answer, headers) of a greedy completion"""
    body = {"prompt": PROMPT, "max_tokens": n, "temperature": 0, "ignore_eos": True, "return_token_ids": True, **body}
    status, data, head = ask(server, "POST", "/v1/completions", body, bearer(key) if key else None)
    return status, json.loads(data), head


def tokens(server, key, **body):
    status, answer, _ = speak(server, key, **body)
    assert status == 200, answer
    return answer["choices"][0]["token_ids"]


def make_tenant(server, name, **settings):
    """The tenant's key."""
    status, answer, _ = server.admin("PUT", f"/admin/v1/tenants/{name}", settings)
    assert status in (200, 201), answer
    return make_key(server, name)["key"]


def make_key(server, tenant, name="default"):
    status, answer, _ = server.admin("POST", "/admin/v1/keys", {"tenant": tenant, "name": name})
    assert status == 201, answer
    return answer


def command(server, *words):
    r = subprocess.run([BINARY, *words, "--admin", "unix:" + server.admin_path], capture_output=True, text=True,
                       timeout=30)
    return r.returncode, r.stdout, r.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("tenants")


@pytest.fixture(scope="module")
def server(place):
    with Server(LLAMA, SHOWN, ["--threads", "2", "--state", str(place / "state.db")], name="tiny") as s:
        # Before there is a tenant everybody is served.
        assert s.get("/v1/models")[0] == 200
        s.alone = {v: tokens(s, None, model=v) for v in (*SHOWN, "base")}
        s.first = make_tenant(s, "first")
        yield s


# ---- keys


def test_a_key_is_needed_once_there_is_a_tenant(server):
    for path in ("/livez", "/readyz", "/health", "/v1/health", "/version"):
        assert server.get(path)[0] == 200
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/completions"), ("POST", "/v1/chat/completions"),
                         ("POST", "/tokenize"), ("GET", "/metrics"), ("GET", "/nowhere")):
        status, data, head = ask(server, method, path, {} if method == "POST" else None)
        assert status == 401, path
        assert head["www-authenticate"].startswith("Bearer")
        assert json.loads(data)["error"]["code"] == "invalid_api_key"
    assert ask(server, "GET", "/v1/models", headers=bearer(server.first))[0] == 200
    assert ask(server, "GET", "/v1/models", headers={"x-api-key": server.first})[0] == 200
    assert ask(server, "GET", "/v1/models", headers={"Authorization": "bearer " + server.first})[0] == 200
    assert ask(server, "GET", "/metrics", headers=bearer(server.first))[0] == 404  # it names everybody's voices
    assert server.admin("GET", "/metrics")[0] == 200


def test_every_dialect_asks_for_the_key(server):
    chat = {"model": "base", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2, "stream": False}
    for path, body in (("/v1/messages", chat), ("/api/chat", chat), ("/v1/responses", {"input": "x", "max_output_tokens": 16}),
                       ("/v1/embeddings", {"model": "base", "input": "x"}), ("/completion", {"prompt": "x", "n_predict": 2}),
                       ("/v1/messages/count_tokens", chat)):
        status, data, _ = ask(server, "POST", path, body)
        assert status == 401 and b"API key" in data, path
        status, data, _ = ask(server, "POST", path, body, {"x-api-key": server.first})
        assert status == 200, (path, data)
    status, data, _ = ask(server, "POST", "/v1/messages", chat)
    assert json.loads(data)["type"] == "error" and json.loads(data)["error"]["type"] == "authentication_error"
    assert ask(server, "GET", "/")[0] == 200 and ask(server, "GET", "/api/version")[0] == 200
    for path in ("/api/tags", "/props", "/slots"):
        assert ask(server, "GET", path)[0] == 401 and ask(server, "GET", path, headers=bearer(server.first))[0] == 200


def test_what_is_no_key(server):
    key = server.first
    wrong = [key[:-1] + ("0" if key[-1] != "0" else "1"), key + "0", key[:-1], key.upper(), "lk_", "", " ", "x" * 5000,
             "lk_000000000000_" + "0" * 64]
    answers = set()
    for text in wrong:
        status, data, head = ask(server, "GET", "/v1/models", headers=bearer(text))
        assert status == 401, text
        head = {k: v for k, v in head.items() if k not in ("date", "x-request-id")}
        answers.add((data, json.dumps(head, sort_keys=True)))
        assert not text.strip() or text not in data.decode() or len(text) < 4
    assert len(answers) == 1  # nothing tells one from another
    assert ask(server, "GET", "/v1/models", headers={"Authorization": "Basic " + key})[0] == 401
    for path in ("/v1/models", "/v1/completions"):
        assert ask(server, "OPTIONS", path)[0] == 204


def test_a_key_is_shown_once_and_kept_nowhere(server, place):
    status, made, head = server.admin("POST", "/admin/v1/keys", {"tenant": "first", "name": "once"})
    assert status == 201 and head["cache-control"] == "no-store"
    key = made["key"]
    assert re.fullmatch(r"lk_[0-9a-f]{12}_[0-9a-f]{64}", key) and key.split("_")[1] == made["id"]
    assert ask(server, "GET", "/v1/models", headers=bearer(key))[0] == 200
    secret = key.split("_")[2]
    for path in ("/admin/v1/keys", "/admin/v1/keys?tenant=first", "/admin/v1/tenants", "/admin/v1/audit"):
        status, text = server.admin_request("GET", path)
        assert status == 200 and secret not in text
    assert secret not in server.log()
    for name in os.listdir(place):
        with open(place / name, "rb") as f:
            assert secret.encode() not in f.read(), name


def test_rotation_keeps_two_and_revoking_acts_at_once(server):
    first = make_key(server, "first", "turning")
    second = make_key(server, "first", "turning")
    status, answer, _ = server.admin("POST", "/admin/v1/keys", {"tenant": "first", "name": "turning"})
    assert status == 409 and answer["error"]["code"] == "two_active"
    status, third, _ = server.admin("POST", f"/admin/v1/keys/{second['id']}/rotate")
    assert status == 201
    works = [ask(server, "GET", "/v1/models", headers=bearer(k["key"]))[0] for k in (first, second, third)]
    assert works == [401, 200, 200]
    assert server.admin("DELETE", f"/admin/v1/keys/{second['id']}")[0] == 200
    assert ask(server, "GET", "/v1/models", headers=bearer(second["key"]))[0] == 401
    assert ask(server, "GET", "/v1/models", headers=bearer(third["key"]))[0] == 200
    assert server.admin("DELETE", "/admin/v1/keys/nobody")[0] == 404
    assert server.admin("POST", "/admin/v1/keys", {"tenant": "nobody"})[0] == 404


def test_a_key_revoked_while_its_stream_runs(server):
    made = make_key(server, "first", "streaming")
    c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    c.request("POST", "/v1/completions", json.dumps({"prompt": PROMPT, "max_tokens": 300, "ignore_eos": True,
                                                     "stream": True}),
              {"Content-Type": "application/json", **bearer(made["key"])})
    r = c.getresponse()
    assert r.status == 200
    begin = r.readline()
    assert server.admin("DELETE", f"/admin/v1/keys/{made['id']}")[0] == 200
    assert speak(server, made["key"])[0] == 401
    rest = begin + r.read()
    c.close()
    events = [line[6:] for line in rest.decode().splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["choices"][0]["finish_reason"] == "length"


def test_restart_keeps_tenants_and_keys(tmp_path):
    extra = ["--threads", "2", "--state", str(tmp_path / "s.db")]
    with Server(LLAMA, SHOWN, extra) as s:
        key = make_tenant(s, "kept", voices=["shows_A"], description="x")
        gone = make_key(s, "kept", "gone")
        assert s.admin("DELETE", f"/admin/v1/keys/{gone['id']}")[0] == 200
        before = s.admin("GET", "/admin/v1/tenants/kept")[1]
        s.kill()
    with Server(LLAMA, SHOWN, extra) as s:
        assert ask(s, "GET", "/v1/models")[0] == 401
        assert ask(s, "GET", "/v1/models", headers=bearer(gone["key"]))[0] == 401
        status, data, _ = ask(s, "GET", "/v1/models", headers=bearer(key))
        assert status == 200 and [m["id"] for m in json.loads(data)["data"]] == ["shows_A"]
        assert s.admin("GET", "/admin/v1/tenants/kept")[1] == before
        assert s.admin("DELETE", "/admin/v1/tenants/kept")[0] == 200
        assert ask(s, "GET", "/v1/models", headers=bearer(key))[0] == 200  # the last is gone: open again


def test_without_a_state_file_nothing_is_made():
    with Server(LLAMA, SHOWN, ["--threads", "2"]) as s:
        status, answer, _ = s.admin("PUT", "/admin/v1/tenants/x", {})
        assert status == 422 and answer["error"]["code"] == "no_state"
        assert s.get("/v1/models")[0] == 200


def test_settings_are_checked(server):
    wrong = [({"voices": "pt"}, "voices"), ({"voices": ["a b"]}, "voices"), ({"request_per_minute": 1}, "request_per_minute"),
             ({"requests_per_minute": -1}, "requests_per_minute"), ({"priority": "vip"}, "priority"),
             ({"aliases": {"a": "1 2"}}, "aliases"), ({"aliases": {"base": "shows_A"}}, "aliases"),
             ({"sampling": {"temperature": -1}}, "sampling"), ({"sampling": {"temprature": 1}}, "sampling"),
             ({"locked": ["nothing"]}, "locked"), ({"endpoints": ["v1"]}, "endpoints"), ({"weight": 0}, "weight"),
             ({"always": "0.5*"}, "always"), ({"context": 1}, "context"), ({"name": "other"}, "name")]
    for settings, param in wrong:
        status, answer, _ = server.admin("PUT", "/admin/v1/tenants/wrong", settings)
        assert status == 400 and answer["error"]["param"] == param, (settings, answer)
    assert server.admin("PUT", "/admin/v1/tenants/-x", {})[0] == 400
    assert server.admin("GET", "/admin/v1/tenants/wrong")[0] == 404


# ---- from a terminal


def test_the_command_line(server):
    code, out, err = command(server, "tenants", "make", "term", "voices=shows_A,shows_B", "requests_per_minute=1000",
                             'aliases={"me": "shows_B"}')
    assert code == 0, err
    assert json.loads(out)["settings"] == {"voices": ["shows_A", "shows_B"], "requests_per_minute": 1000,
                                           "aliases": {"me": "shows_B"}}
    code, out, err = command(server, "keys", "make", "term", "prod")
    key = out.strip()
    assert code == 0 and tokens(server, key, model="me") == server.alone["shows_B"]
    code, out, err = command(server, "tenants", "set", "term", "default_voice=shows_A", "aliases=")
    assert code == 0 and "aliases" not in json.loads(out)["settings"]
    assert tokens(server, key) == server.alone["shows_A"]
    code, out, _ = command(server, "tenants", "list")
    assert code == 0 and re.search(r"^term +state", out, re.M)
    code, out, _ = command(server, "keys", "list", "term")
    assert code == 0 and key.split("_")[1] in out and "active" in out and key not in out
    code, out, _ = command(server, "keys", "rotate", key.split("_")[1])
    assert code == 0 and tokens(server, out.strip())
    code, out, _ = command(server, "keys", "revoke", key.split("_")[1])
    assert code == 0 and speak(server, key)[0] == 401
    code, out, _ = command(server, "tenants", "audit")
    assert code == 0 and "key revoked" in out and "term/" + key.split("_")[1] in out
    assert command(server, "tenants", "remove", "term")[0] == 0
    assert command(server, "tenants", "show", "term")[0] == 1
    assert command(server, "tenants", "nonsense")[0] == 2


# ---- the tenants file


def test_the_file_is_read_again(tmp_path):
    def generate(name):
        r = subprocess.run([BINARY, "keys", "generate", name], capture_output=True, text=True)
        return r.stdout.strip(), re.search(r"(    keys:\n(.*\n)*.*sha256: \w+)", r.stderr).group(1)

    file = tmp_path / "tenants.yaml"
    (key_a, line_a), (key_b, line_b) = generate("prod"), generate("prod")
    file.write_text(f"tenants:\n  - name: a\n    voices: [shows_A]\n    aliases: [assistant=shows_A]\n    weight: 2.5\n"
                    f"    sampling: {{max_tokens: 3, stop: [zzz]}}\n{line_a}\n")
    with Server(LLAMA, SHOWN, ["--threads", "2", "--tenants", str(file), "--state", str(tmp_path / "s.db")]) as s:
        def models(key):
            status, data, _ = ask(s, "GET", "/v1/models", headers=bearer(key))
            return [m["id"] for m in json.loads(data)["data"]] if status == 200 else status

        def reload(text, says):
            n = s.log().count(says)
            file.write_text(text)
            s.process.send_signal(signal.SIGHUP)
            end = time.time() + 10
            while s.log().count(says) == n and time.time() < end:
                time.sleep(0.02)
            assert s.log().count(says) > n

        assert models(key_a) == ["assistant", "shows_A"] and models(key_b) == 401
        # Its tenants can't be changed here, but keys of the state file may join.
        assert s.admin("PUT", "/admin/v1/tenants/a", {})[0] == 409
        assert s.admin("DELETE", "/admin/v1/tenants/a")[0] == 409
        assert s.admin("DELETE", "/admin/v1/keys/" + key_a.split("_")[1])[0] == 409
        more = make_key(s, "a")["key"]
        assert models(more) == ["assistant", "shows_A"]
        good = f"tenants:\n  - name: a\n    voices: [shows_B]\n{line_a}\n  - name: b\n{line_b}\n"
        reload(good, "tenants file read")
        assert models(key_a) == ["shows_B"] and "shows_D" in models(key_b) and models(more) == ["shows_B"]
        for bad in ("tenants: [", "tenants:\n  - name: a\n    voice: [x]\n", "tenants:\n  - nme: a\n", good + good,
                    "tenants:\n  - name: a\n    weight: heavy\n",
                    f"tenants:\n  - name: a\n{line_a}\n  - name: c\n{line_a}\n"):
            reload(bad, "not taken")
            assert models(key_a) == ["shows_B"]
        # Two of a name at most, those of the state file among them.
        id_a, id_b, item_b = key_a.split("_")[1], key_b.split("_")[1], line_b.split("keys:\n")[1]
        two = f"tenants:\n  - name: a\n    voices: [shows_B]\n{line_a}\n{item_b}\n"
        reload(two + item_b.replace(id_b, "0third").replace(item_b[-9:], "012345678") + "\n", "not taken")
        why = s.log().splitlines()[-1]
        assert all(x in why for x in (str(file), "tenant \\\"a\\\"", id_a, id_b, "0third", "prod", "expected 2 at most")), why
        assert models(key_a) == ["shows_B"] and "shows_D" in models(key_b) and models(more) == ["shows_B"]
        kept = make_key(s, "a", "prod")
        reload(two, "not taken")
        assert "lorikeet keys revoke " + kept["id"] in s.log().splitlines()[-1]
        assert models(kept["key"]) == ["shows_B"] and "shows_D" in models(key_b)
        assert s.admin("DELETE", "/admin/v1/keys/" + kept["id"])[0] == 200
        reload(two, "tenants file read")
        assert models(key_a) == models(key_b) == ["shows_B"] and models(kept["key"]) == 401
        reload("tenants: []\n", "tenants file read")
        assert models(key_a) == models(more) == models(key_b) == 401
        reload(good, "tenants file read")
        assert models(key_a) == ["shows_B"] and models(more) == ["shows_B"]
    (tmp_path / "c.yaml").write_text(f"model: {LLAMA}\ntenants: {file}\n")
    assert subprocess.run([BINARY, "check-config", str(tmp_path / "c.yaml")], capture_output=True).returncode == 0
    file.write_text("tenants:\n  - name: a\n    weight: heavy\n")
    r = subprocess.run([BINARY, "check-config", str(tmp_path / "c.yaml")], capture_output=True, text=True)
    assert r.returncode == 1 and "weight" in r.stderr
    r = subprocess.run([BINARY, "serve", "--model", LLAMA, "--tenants", str(tmp_path / "none.yaml")],
                       capture_output=True, text=True, timeout=60)
    assert r.returncode == 1 and "none.yaml" in r.stderr


# ---- voices


@pytest.fixture(scope="module")
def two(server):
    """Keys of two tenants with the same alias and voices of their own."""
    return (make_tenant(server, "left", aliases={"assistant": "shows_A"}, own_voices=["shows_A"]),
            make_tenant(server, "right", aliases={"assistant": "shows_B"}, own_voices=["shows_B"], default_voice="shows_C"))


def test_the_same_alias_in_one_batch(server, two):
    assert server.alone["shows_A"] != server.alone["shows_B"]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        got = list(pool.map(lambda i: tokens(server, two[i % 2], model="assistant", n=4), range(32)))
    assert got[0::2] == [server.alone["shows_A"]] * 16
    assert got[1::2] == [server.alone["shows_B"]] * 16


def test_a_foreign_voice_and_a_missing_one_are_the_same(server, two):
    left, right = two

    def same_but_for(name, missing, answer, other):
        status, data, head = answer
        other_status, other_data, other_head = other
        drop = ("date", "x-request-id")
        assert status == other_status
        assert data.replace(name.encode(), b"?") == other_data.replace(missing.encode(), b"?")
        assert {k: v for k, v in head.items() if k not in drop} == {k: v for k, v in other_head.items() if k not in drop}
        return status

    for words in ("{}", "{}@1", "0.5*{}", "shows_C+{}", "base:{}", "{}+{}"):
        asked = [ask(server, "POST", "/v1/completions", {"model": words.replace("{}", v), "prompt": PROMPT, "max_tokens": 2},
                     bearer(left)) for v in ("shows_B", "shows_X")]
        assert same_but_for("shows_B", "shows_X", *asked) == 404, words
        asked = [ask(server, "POST", "/v1/completions", {"prompt": PROMPT, "max_tokens": 2},
                     {**bearer(left), "X-Adapter": words.replace("{}", v)}) for v in ("shows_B", "shows_X")]
        assert same_but_for("shows_B", "shows_X", *asked) == 404, words
    asked = [ask(server, "GET", f"/v1/models/{v}", None, bearer(left)) for v in ("shows_B", "shows_X")]
    assert same_but_for("shows_B", "shows_X", *asked) == 404
    asked = [ask(server, "POST", "/v1/completions", {"adapters": [{"name": v, "scale": 1}], "prompt": PROMPT}, bearer(left))
             for v in ("shows_B", "shows_X")]
    assert same_but_for("shows_B", "shows_X", *asked) == 404
    status, data, _ = ask(server, "GET", "/lora-adapters", None, bearer(right))
    known = {a["name"]: a["id"] for a in json.loads(data)}
    assert status == 200 and "shows_B" in known and "shows_A" not in known
    asked = [ask(server, "POST", "/v1/completions", {"lora": [{"id": i, "scale": 1}], "prompt": PROMPT, "max_tokens": 2},
                 bearer(left)) for i in (known["shows_B"], 9)]
    assert same_but_for(f"id {known['shows_B']};", "id 9;", *asked) == 400


def test_what_models_shows(server, two):
    def models(key):
        return [m["id"] for m in json.loads(ask(server, "GET", "/v1/models", None, bearer(key))[1])["data"]]

    left, right = two
    assert models(left) == ["assistant", "tiny", "shows_A", "shows_C", "shows_D"]
    assert models(right) == ["assistant", "tiny", "shows_B", "shows_C", "shows_D"]
    assert models(server.first) == ["tiny", "shows_C", "shows_D"]
    assert ask(server, "GET", "/v1/models/assistant", None, bearer(left))[0] == 200
    assert ask(server, "GET", "/v1/models/assistant", None, bearer(server.first))[0] == 404
    tags = json.loads(ask(server, "GET", "/api/tags", None, bearer(right))[1])["models"]
    assert [m["name"].split(":")[0] for m in tags] == models(right)
    for name, status in (("assistant", 200), ("shows_A", 200), ("shows_B", 404)):
        assert ask(server, "POST", "/api/show", {"model": name}, bearer(left))[0] == status
    few = make_tenant(server, "few", voices=["shows_C"])
    assert models(few) == ["shows_C"]
    assert speak(server, few, model="tiny")[0] == 404 and speak(server, few)[0] == 404
    assert tokens(server, few, model="shows_C") == server.alone["shows_C"]
    assert tokens(server, right) == server.alone["shows_C"]  # its default
    assert tokens(server, right, model="base") == server.alone["base"]
    assert tokens(server, left) == server.alone["base"]


def test_what_is_always_added(server):
    key = make_tenant(server, "safe", always="shows_D", aliases={"off": "-1*shows_D"})
    status, answer, head = speak(server, key, model="base")
    assert status == 200 and head["x-adapter-always"] == "shows_D"
    assert answer["choices"][0]["token_ids"] == server.alone["shows_D"]
    for model in ("-1*shows_D", "shows_C+-0.5*shows_D", "off"):
        status, answer, _ = speak(server, key, model=model)
        assert status == 400 and answer["error"]["code"] == "policy", model
    with open(os.devnull):
        status, _, head = speak(server, server.first, model="base")
        assert status == 200 and "x-adapter-always" not in head


# ---- settings of requests


def test_sampling_defaults_and_locks(server):
    key = make_tenant(server, "set", sampling={"max_tokens": 3, "temperature": 0, "seed": 7}, locked=["temperature"])
    body = {"prompt": PROMPT, "ignore_eos": True, "return_token_ids": True}
    first, again = [json.loads(ask(server, "POST", "/v1/completions", body, bearer(key))[1]) for _ in range(2)]
    assert len(first["choices"][0]["token_ids"]) == 3 and first["choices"] == again["choices"]
    status, data, _ = ask(server, "POST", "/v1/completions", {**body, "temperature": 1}, bearer(key))
    error = json.loads(data)["error"]
    assert status == 400 and error["param"] == "temperature" and error["code"] == "locked"
    assert ask(server, "POST", "/v1/completions", {**body, "temperature": 0}, bearer(key))[0] == 200
    for field in ("max_tokens", "max_completion_tokens", "n_predict"):  # the caller's own value wins
        answer = json.loads(ask(server, "POST", "/v1/completions", {**body, field: 5}, bearer(key))[1])
        assert len(answer["choices"][0]["token_ids"]) == 5


def test_the_system_prompt_is_in_front(server):
    secret = "Speak like a pirate."
    plain, set_up = make_tenant(server, "plain"), make_tenant(server, "pirate", system_prompt=secret)

    def n_prompt(key, messages):
        status, data, _ = ask(server, "POST", "/v1/chat/completions", {"messages": messages, "max_tokens": 1}, bearer(key))
        assert status == 200, data
        return json.loads(data)["usage"]["prompt_tokens"]

    user = {"role": "user", "content": "Hello"}
    cases = [([user], [{"role": "system", "content": secret}, user]),
             ([{"role": "system", "content": "Be kind."}, user], [{"role": "system", "content": secret + "\n\nBe kind."}, user])]
    for theirs, whole in cases:
        assert n_prompt(set_up, theirs) == n_prompt(plain, whole) > n_prompt(plain, theirs)
    parts = [{"role": "developer", "content": [{"type": "text", "text": "Be kind."}]}, user]
    assert n_prompt(set_up, parts) == n_prompt(plain, [{"role": "system", "content": secret + "\nBe kind."}, user])


def test_paths_and_context(server):
    key = make_tenant(server, "narrow", endpoints=["/v1/completions", "/v1/models*"], context=20)
    assert speak(server, key)[0] == 200 and ask(server, "GET", "/v1/models/tiny", None, bearer(key))[0] == 200
    status, data, _ = ask(server, "POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}, bearer(key))
    assert status == 403 and json.loads(data)["error"]["code"] == "endpoint_not_allowed"
    status, answer, _ = speak(server, key, n=100)
    assert status == 200 and answer["usage"]["total_tokens"] == 20 and answer["choices"][0]["finish_reason"] == "length"
    status, answer, _ = speak(server, key, prompt=[5] * 20)
    assert status == 400 and answer["error"]["code"] == "context_length_exceeded"
    status, answer, _ = speak(server, key, prompt="word " * 40)
    assert status == 400 and answer["error"]["code"] == "context_length_exceeded"
    models = json.loads(ask(server, "GET", "/v1/models", None, bearer(key))[1])["data"]
    assert {m["max_model_len"] for m in models} == {20}


def test_the_prefix_cache_is_a_tenants_own(server):
    prompt = [7] * 100
    one, other = make_tenant(server, "cache1"), make_tenant(server, "cache2")
    group1, group2 = make_tenant(server, "group1", cache_group="g"), make_tenant(server, "group2", cache_group="g")

    def cached(key, prompt):
        status, answer, _ = speak(server, key, n=1, prompt=prompt)
        assert status == 200
        return answer["usage"]["prompt_tokens_details"]["cached_tokens"]

    assert cached(one, prompt) == 0 and cached(one, prompt) > 0
    assert cached(make_key(server, "cache1", "second")["key"], prompt) > 0  # a tenant's, not a key's
    assert cached(other, prompt) == 0
    assert cached(group1, prompt) == 0 and cached(group2, prompt) > 0


# ---- limits


def crowd(server, key, many, **body):
    """So many at the same time."""
    gate = threading.Barrier(many)

    def one(_):
        gate.wait()
        return speak(server, key, **body)
    with concurrent.futures.ThreadPoolExecutor(many) as pool:
        return list(pool.map(one, range(many)))


def test_requests_are_counted_exactly(server):
    key = make_tenant(server, "rpm", requests_per_minute=10, requests_per_day=1000)
    got = crowd(server, key, 64, n=2)
    assert sorted(s for s, _, _ in got) == [200] * 10 + [429] * 54
    for status, answer, head in got:
        assert head["x-ratelimit-limit-requests"] == "10"
        assert head["ratelimit-policy"] == '"requests-minute";q=10;w=60, "requests-day";q=1000;w=86400'
        if status == 429:
            assert answer["error"]["code"] == "rate_limit_exceeded" and answer["error"]["type"] == "rate_limit_error"
            assert 1 <= int(head["retry-after"]) <= 61 and head["x-ratelimit-remaining-requests"] == "0"
    assert sorted(int(h["x-ratelimit-remaining-requests"]) for s, _, h in got if s == 200) == list(range(10))
    assert ask(server, "GET", "/v1/models", None, bearer(key))[0] == 200  # costs nothing


def test_tokens_are_counted_exactly(server):
    key = make_tenant(server, "tpm", tokens_per_minute=200)
    got = crowd(server, key, 64, n=5)  # 5 of prompt, 5 to come
    used = sum(a["usage"]["total_tokens"] for s, a, _ in got if s == 200)
    assert used == 200 and {s for s, _, _ in got} == {200, 429}
    now = server.admin("GET", "/admin/v1/tenants/tpm")[1]["now"]
    assert now["tokens_per_minute"] == {"limit": 200, "used": 200} and now["running"] == 0


def test_all_that_is_computed_is_counted(server):
    key = make_tenant(server, "best", tokens_per_minute=100)
    for more, used in (({"n": 2}, 15), ({"best_of": 4}, 25), ({"best_of": 3, "n": 2, "prompt": [PROMPT, PROMPT]}, 40)):
        before = server.admin("GET", "/admin/v1/tenants/best")[1]["now"]["tokens_per_minute"]["used"]
        body = {"prompt": PROMPT, "max_tokens": 5, "temperature": 0, "ignore_eos": True, **more}
        status, data, _ = ask(server, "POST", "/v1/completions", body, bearer(key))
        assert status == 200 and json.loads(data)["usage"]["total_tokens"] == used
        assert server.admin("GET", "/admin/v1/tenants/best")[1]["now"]["tokens_per_minute"]["used"] == before + used
    status, data, _ = ask(server, "POST", "/v1/completions", {**body, "prompt": PROMPT, "best_of": 4, "n": 1}, bearer(key))
    assert status == 429


def test_what_was_reserved_and_not_needed_is_given_back(server):
    key = make_tenant(server, "back", tokens_per_minute=300, requests_per_minute=100)
    for i in range(4):  # each may take 105, and takes 5 + 1: the first token of a stop list ends it
        first = server.alone["base"][0]
        status, answer, head = speak(server, key, n=100, ignore_eos=False, stop_token_ids=[first])
        assert status == 200 and answer["usage"]["total_tokens"] == 6, answer
        assert int(head["x-ratelimit-remaining-tokens"]) == 300 - 6 * i - 105
    assert server.admin("GET", "/admin/v1/tenants/back")[1]["now"]["tokens_per_minute"]["used"] == 24
    status, answer, _ = speak(server, key, n=400)
    assert status == 429 and "max_tokens" in answer["error"]["message"]
    assert speak(server, key, model="nobody")[0] == 404
    assert server.admin("GET", "/admin/v1/tenants/back")[1]["now"]["tokens_per_minute"]["used"] == 24


def test_running_at_the_same_time(server):
    key = make_tenant(server, "few-at-once", concurrent_requests=3)
    got = crowd(server, key, 24, n=200)
    n_ok = sum(s == 200 for s, _, _ in got)
    assert n_ok >= 3 and {s for s, _, _ in got} <= {200, 429}
    assert server.admin("GET", "/admin/v1/tenants/few-at-once")[1]["now"]["running"] == 0
    assert speak(server, key)[0] == 200
    shut = make_tenant(server, "shut", concurrent_requests=0)
    assert speak(server, shut)[0] == 429


def test_loads_are_counted(server):
    key = make_tenant(server, "loader", loads_per_minute=2, kv_share=0.5)
    for i in range(3):
        assert server.admin("POST", "/admin/v1/adapters/shows_D/unload")[0] == 200
        status, answer, head = speak(server, key, model="shows_D")
        assert status == (429 if i == 2 else 200), answer
    assert "loads" in answer["error"]["message"] and int(head["retry-after"]) <= 61
    assert speak(server, server.first, model="shows_D")[0] == 200 == speak(server, key, model="shows_D")[0]
    shared = make_tenant(server, "shares-a-load", loads_per_minute=1)
    assert server.admin("POST", "/admin/v1/adapters/shows_D/unload")[0] == 200
    assert [s for s, _, _ in crowd(server, shared, 16, n=2, model="shows_D")] == [200] * 16  # all wait for the same one
    none = make_tenant(server, "none", requests_per_minute=0)
    status, answer, head = speak(server, none)
    assert status == 429 and head["retry-after"] == "60" and "0 requests per minute" in answer["error"]["message"]


def test_own_voices_share_their_tenants_memory(tmp_path):
    names = [f"mine{i}" for i in range(4)]
    with Server(LLAMA, {n: SHOWN[f"shows_{x}"] for n, x in zip(names, "ABCD")}, ["--threads", "2", "--state", str(tmp_path / "s.db")]) as s:
        def resident():
            return [a["name"] for a in s.admin("GET", "/admin/v1/adapters")[1]["data"] if a["state"] == "resident"]

        assert resident() == names
        size = s.admin("GET", "/admin/v1/adapters/mine0/versions")[1]["data"][0]["bytes"]
        key = make_tenant(s, "t", own_voices=["mine*"], resident_bytes=2 * size + size // 2)
        for name in names:
            assert s.admin("POST", f"/admin/v1/adapters/{name}/unload")[0] == 200
        for name, there in (("mine0", ["mine0"]), ("mine1", ["mine0", "mine1"]), ("mine0", ["mine0", "mine1"]),
                            ("mine2", ["mine0", "mine2"]), ("mine3", ["mine2", "mine3"])):
            assert speak(s, key, model=name)[0] == 200
            assert resident() == there
        # What is in use can't leave, and what is on its way counts: no number of requests at the same time passes the limit.
        for name in names:
            assert s.admin("POST", f"/admin/v1/adapters/{name}/unload")[0] == 200
        most, done = [0], threading.Event()

        def watch():
            while not done.is_set():
                most[0] = max(most[0], s.admin("GET", "/admin/v1/adapters")[1]["usage"]["resident_bytes"])
        watcher = threading.Thread(target=watch)
        watcher.start()
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            got = list(pool.map(lambda i: speak(s, key, model=names[i % 4], n=100), range(32)))
        done.set()
        watcher.join()
        assert most[0] <= 2 * size and {status for status, _, _ in got} == {200, 429}
        refused = [(a["error"], head) for status, a, head in got if status == 429]
        assert all("voices in use" in e["message"] and head["retry-after"] == "1" for e, head in refused)
        assert [speak(s, key, model=name)[0] for name in names] == [200] * 4
        assert s.admin("PUT", "/admin/v1/tenants/t", {"own_voices": ["mine*"], "resident_bytes": size - 1})[0] == 200
        status, answer, _ = speak(s, key, model="mine0")
        assert status == 403 and "memory" in answer["error"]["message"]


def own(s, *names, **settings):
    """The key of a tenant with these voices, of which none is in memory, and room for one and a half. (key, bytes of one)"""
    for name, of in names:
        status, answer, _ = s.admin("PUT", f"/admin/v1/adapters/{name}", {"source": of})
        assert status in (200, 201), answer
    size = s.admin("GET", f"/admin/v1/adapters/{names[0][0]}/versions")[1]["data"][0]["bytes"]
    for name, _ in names:
        assert s.admin("POST", f"/admin/v1/adapters/{name}/unload")[0] == 200
    return make_tenant(s, "t", own_voices=[name for name, _ in names], resident_bytes=size + size // 2, **settings), size


def test_versions_are_loads_of_their_own(tmp_path):
    with Server(LLAMA, {}, [*ROOT, "--state", str(tmp_path / "s.db")]) as s:
        key, _ = own(s, ("mine0", "shows_A"), ("mine0", "shows_B"), loads_per_minute=1)
        names = [f"mine0@{v['generation']}" for v in s.admin("GET", "/admin/v1/adapters/mine0/versions")[1]["data"]]
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            got = list(pool.map(lambda i: (names[i % 2], speak(s, key, n=2, model=names[i % 2])[0]), range(16)))
        assert sorted(got) in [sorted([(a, 200), (b, 429)] * 8) for a, b in (names, names[::-1])]


def resident_bytes(s):
    return s.admin("GET", "/admin/v1/adapters")[1]["usage"]["resident_bytes"]


def test_no_room_costs_no_load(tmp_path):
    with Server(LLAMA, {}, [*ROOT, "--state", str(tmp_path / "s.db")]) as s:
        key, _ = own(s, ("mine0", "shows_A"), ("mine1", "shows_B"), loads_per_minute=2)
        c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=60)
        c.request("POST", "/v1/completions", json.dumps({"model": "mine0", "prompt": PROMPT, "max_tokens": 10 ** 6, "stream": True,
                                                         "ignore_eos": True}), bearer(key))
        stream = c.getresponse()
        assert stream.status == 200 and stream.readline()
        for _ in range(3):
            status, answer, head = speak(s, key, model="mine1")
            assert (status, head["retry-after"]) == (429, "1") and "in use" in answer["error"]["message"]
            assert answer["error"]["code"] == "rate_limit_exceeded"
        stream.close()
        c.close()
        end = time.time() + 30
        while (status := speak(s, key, model="mine1")[0]) == 429 and time.time() < end:
            time.sleep(0.05)
        assert status == 200  # the second load of this minute
        status, answer, _ = speak(s, key, model="mine0")
        assert status == 429 and "loads" in answer["error"]["message"]


def test_a_sum_of_own_voices_beyond_their_memory(tmp_path):
    with Server(LLAMA, {}, [*ROOT, "--state", str(tmp_path / "s.db")]) as s:
        key, size = own(s, ("mine0", "shows_A"), ("mine1", "shows_B"))
        status, answer, _ = speak(s, key, model="mine0+mine1")
        assert status == 403 and str(size + size // 2) in answer["error"]["message"] and "mine0+mine1" in answer["error"]["message"]
        assert speak(s, key, model="mine0+0.5*mine0")[0] == 200  # one version


def test_versions_of_an_own_voice_share_its_memory(tmp_path):
    with Server(LLAMA, {}, [*ROOT, "--state", str(tmp_path / "s.db")]) as s:
        key, size = own(s, ("mine0", "shows_A"), ("mine0", "shows_B"))
        versions = [v["generation"] for v in s.admin("GET", "/admin/v1/adapters/mine0/versions")[1]["data"]]
        assert len(versions) == 2
        for version in versions * 2:
            assert speak(s, key, model=f"mine0@{version}")[0] == 200
            assert resident_bytes(s) == size


def test_own_voices_of_unknown_size(tmp_path):
    with Server(LLAMA, {}, [*ROOT, "--state", str(tmp_path / "s.db")]) as s:
        key, size = own(s, ("mine0", "shows_A"))
        for name, of in (("mine1", "shows_B"), ("mine2", "shows_C")):  # nobody has looked at their bytes yet
            assert s.admin("PUT", f"/admin/v1/adapters/{name}", {"source": of, "load": False})[0] == 201
        assert s.admin("PUT", "/admin/v1/tenants/t", {"own_voices": ["mine*"], "resident_bytes": 100})[0] == 200
        status, answer, _ = speak(s, key, model="mine1")
        assert status == 403 and "your own voices may have 100" in answer["error"]["message"]
        assert s.admin("GET", "/admin/v1/adapters/mine1")[1]["last_error"] is None and resident_bytes(s) == 0
        assert s.admin("PUT", "/admin/v1/tenants/t", {"own_voices": ["mine*"], "resident_bytes": size + size // 2})[0] == 200
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            got = {status for status, _, _ in pool.map(lambda i: speak(s, key, model=f"mine{1 + i % 2}", n=100), range(8))}
        assert got <= {200, 429} and 200 in got and resident_bytes(s) == size


def test_what_takes_more_than_its_files_is_read_once(tmp_path):
    with Server(LLAMA, {}, [*ROOT, "--state", str(tmp_path / "s.db")]) as s:
        _, size = own(s, ("mine0", "dora_r3"))
        files = s.admin("GET", "/admin/v1/adapters/mine0")[1]["file_bytes"]
        assert files < size
        assert s.admin("PUT", "/admin/v1/adapters/mine1", {"source": "dora_r3", "load": False})[0] == 201
        key = make_tenant(s, "u", own_voices=["mine1"], resident_bytes=size - 1, loads_per_minute=1)
        for _ in range(3):
            status, answer, _ = speak(s, key, model="mine1")
            assert status == 403 and f"{size} bytes" in answer["error"]["message"], answer


def test_the_start_and_operators_heed_a_tenants_memory(tmp_path):
    def in_memory(s):
        return [a["name"] for a in s.admin("GET", "/admin/v1/adapters")[1]["data"] if a["state"] == "resident"]

    state = [*ROOT, "--state", str(tmp_path / "s.db")]
    with Server(LLAMA, {}, state) as s:
        key, size = own(s, ("mine0", "shows_A"), ("mine1", "shows_B"), ("other", "shows_D"))
        assert s.admin("PUT", "/admin/v1/tenants/t", {"own_voices": ["mine*"], "resident_bytes": size + size // 2})[0] == 200
    with Server(LLAMA, {}, state) as s:
        assert in_memory(s) in (["mine0", "other"], ["mine1", "other"])
        assert speak(s, key, model="mine1")[0] == 200 and in_memory(s) == ["mine1", "other"]
        for name, of in (("mine0", "shows_C"), ("mine2", "shows_C")):  # an operator's load finds room, too
            assert s.admin("PUT", f"/admin/v1/adapters/{name}", {"source": of})[0] in (200, 201)
            assert in_memory(s) == [name, "other"]
        assert s.admin("PATCH", "/admin/v1/adapters/mine2", {"pinned": True})[0] == 200
        status, answer, _ = speak(s, key, model="mine1")
        assert status == 429 and "in use" in answer["error"]["message"] and in_memory(s) == ["mine2", "other"]


def test_a_start_from_a_folder_heeds_a_tenants_memory(tmp_path):
    folder = tmp_path / "voices"
    state = ["--adapters", str(folder), "--threads", "2", "--state", str(tmp_path / "s.db")]
    folder.mkdir()
    for i, x in enumerate("ABCD"):
        shutil.copytree(SHOWN[f"shows_{x}"], folder / f"mine{i}")
    with Server(LLAMA, {}, state) as s:
        total = resident_bytes(s)
        key = make_tenant(s, "t", own_voices=["mine*"], resident_bytes=total // 4 + total // 8)
    with Server(LLAMA, {}, state) as s:
        usage = s.admin("GET", "/admin/v1/adapters")[1]["usage"]
        assert usage["resident_bytes"] == total // 4 and usage["n_evictions"] == 0, usage
        assert [speak(s, key, model=f"mine{i}")[0] for i in range(4)] == [200] * 4 and resident_bytes(s) == total // 4


def test_served_by_weight(tmp_path):
    with Server(LLAMA, {}, ["--threads", "1", "--sequences", "4", "--state", str(tmp_path / "s.db")]) as s:
        keys = [make_tenant(s, f"weight{w}", weight=w) for w in (1, 3)]
        served, begin, end = [0, 0], time.time() + 1, time.time() + 5  # behind the first fill, which nobody waits for

        def client(i):
            while time.time() < end:
                status, answer, _ = speak(s, keys[i % 2], n=200, prompt=[1, 40 + i, 7])
                assert status == 200
                served[i % 2] += answer["usage"]["completion_tokens"] * (begin < time.time() < end)
        with concurrent.futures.ThreadPoolExecutor(60) as pool:
            list(pool.map(client, range(60)))
        assert 2.7 < served[1] / served[0] < 3.3, served
        numbers = s.admin_request("GET", "/metrics")[1]
        assert "lorikeet_tenant_wait_max_seconds" in numbers and "lorikeet_wait_bound_seconds 30\n" in numbers
        for name in ("voice_wait_max", "class_wait_max"):
            waits = [float(x) for x in re.findall(rf'lorikeet_{name}_seconds{{class="\w+"}} (\S+)', numbers)]
            assert len(waits) == 2 and waits[0] > 0 == waits[1]


# ---- usage


def test_usage_is_kept_by_key_and_voice(server, two):
    key = make_tenant(server, "used")
    for voice, n in (("shows_A", 2), ("shows_C", 3), ("shows_C", 4), ("base", 1)):
        speak(server, key, n=n, model=voice)
    status, answer, _ = server.admin("GET", "/admin/v1/usage?tenant=used")
    assert status == 200
    rows = {r["voice"]: r for r in answer["data"]}
    assert set(rows) == {"shows_C", "tiny"}  # shows_A is another tenant's
    assert (rows["shows_C"]["requests"], rows["shows_C"]["tokens_in"], rows["shows_C"]["tokens_out"]) == (2, 10, 7)
    assert rows["shows_C"]["version"].isdigit() and rows["shows_C"]["key"] == key.split("_")[1]
    status, text = server.admin_request("GET", "/admin/v1/usage?tenant=used&format=csv")
    lines = text.split("\r\n")
    assert lines[0] == "hour,tenant,key,voice,version,requests,tokens_in,tokens_out,tokens_cached" and len(lines) == 4
    assert server.admin("GET", "/admin/v1/usage", headers={"Accept": "text/csv"})[2]["content-type"].startswith("text/csv")
    assert server.admin("GET", "/admin/v1/usage?from=2001-01-01&to=2001-02-01")[1]["data"] == []
    assert server.admin("GET", "/admin/v1/usage?from=yesterday")[0] == 400
    audit = server.admin("GET", "/admin/v1/audit?limit=2")[1]["data"]
    assert [(a["operation"], a["object"].split("/")[0]) for a in audit] == [("key", "used"), ("tenant", "used")]
    assert audit[0]["by"].startswith("uid ")


def test_a_crash_loses_seconds_at_most(tmp_path):
    extra = ["--threads", "2", "--state", str(tmp_path / "s.db")]
    with Server(LLAMA, SHOWN, extra) as s:
        key = make_tenant(s, "t", requests_per_day=5)
        assert [speak(s, key)[0] for _ in range(3)] == [200] * 3
        assert s.admin("GET", "/admin/v1/usage")[0] == 200  # writes what there is
        s.kill()
    with Server(LLAMA, SHOWN, extra) as s:
        row, = s.admin("GET", "/admin/v1/usage")[1]["data"]
        assert (row["requests"], row["tokens_in"], row["tokens_out"]) == (3, 15, 12)
        assert [speak(s, key)[0] for _ in range(3)] == [200, 200, 429]  # the day's limit knows
        assert s.stop() == 0
    with Server(LLAMA, SHOWN, extra) as s:  # an orderly end loses nothing
        assert sum(r["requests"] for r in s.admin("GET", "/admin/v1/usage")[1]["data"]) == 5


def test_nothing_is_counted_twice_whenever_it_is_killed(tmp_path):
    """Behind each SIGKILL a key has at least what was said to be written, at most what it asked for, and no row's half."""
    extra, file = ["--threads", "2", "--state", str(tmp_path / "s.db")], tmp_path / "s.db"
    keys, voices, rounds, asked, answered = {}, sorted(SHOWN), 8, {}, {}

    def count(rows):
        for r in rows:
            assert (r["tokens_in"], r["tokens_out"]) == (5 * r["requests"], 2 * r["requests"]), r
        return {k: sum(r["requests"] for r in rows if r["key"] == k) for k in keys}

    def client(s, key, done):
        while not done.is_set():
            voice = voices[asked[key] % len(voices)]
            asked[key] += 1
            try:
                status, answer, _ = speak(s, keys[key], n=2, model=voice)
            except (OSError, http.client.HTTPException, ValueError):
                return  # killed
            assert status == 200, answer
            answered[key] += 1

    def in_file():
        db = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
        found = dict(db.execute("SELECT key, sum(requests) FROM usage GROUP BY key"))
        db.close()
        return {k: found.get(k, 0) for k in keys}

    before, waited = {}, None
    for n in range(rounds + 1):
        with Server(LLAMA, SHOWN, extra) as s:
            if n == 0:
                made = [make_tenant(s, t) for t in ("one", "two")]
                keys = {k.split("_")[1]: k for k in made}
                before, written = dict.fromkeys(keys, 0), dict.fromkeys(keys, 0)
            usage = count(s.admin("GET", "/admin/v1/usage")[1]["data"])
            for k in keys if n else ():
                assert before[k] <= written[k] <= usage[k] <= before[k] + asked[k], (n, k, before, written, usage, asked)
            before = usage
            asked, answered = dict.fromkeys(keys, 0), dict.fromkeys(keys, 0)
            if n == rounds:
                break
            done = threading.Event()
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                clients = [pool.submit(client, s, k, done) for k in keys]
                try:
                    if n == 0:  # nobody asks: it is written all the same
                        while min(answered.values()) < 3 and not any(c.done() for c in clients):
                            time.sleep(0.01)
                        waited, end = dict(answered), time.time() + 60
                        while any(in_file()[k] < waited[k] for k in keys) and time.time() < end:
                            time.sleep(0.05)
                        written = in_file()
                        assert all(written[k] >= waited[k] > 0 for k in keys), (written, waited)
                    for _ in range(3 * n):  # an answer says that all until then is written; the kill comes into the next ones
                        written = count(s.admin("GET", "/admin/v1/usage")[1]["data"])
                finally:
                    s.kill()
                    done.set()
                for c in clients:
                    c.result()
    assert sum(before.values()) > 0


def test_a_tenants_name_for_the_rules(tmp_path):
    rules = ["--auto", "header:X-Tongue:b=shows_B", "--auto", "default=shows_A"]
    with Server(LLAMA, SHOWN, ["--threads", "2", "--state", str(tmp_path / "s.db"), *rules]) as s:
        alone = {v: tokens(s, None, model=v) for v in SHOWN}
        key = make_tenant(s, "ruled", aliases={"assistant": "auto"}, default_voice="auto")
        for body in ({"model": "assistant"}, {"model": "auto"}, {}):
            assert tokens(s, key, **body) == alone["shows_A"], body
        few = make_tenant(s, "few", voices=["shows_C", "auto"])  # what the rules choose must be the tenant's, too
        assert speak(s, few, model="auto")[0] == 404
