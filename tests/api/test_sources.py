"""Adapters from https, S3 and the hub's layout: real servers on loopback, `lorikeet fetch` as an operator calls it."""
import base64
import hashlib
import json
import os
import signal
import subprocess
import threading
import time

import pytest

from conftest import ADAPTERS
from harness import BINARY, DATA, ROOT
from source_server import S3, Hub, World, make_certificate, sha256

SANITIZED = os.path.join(ROOT, "build", "asan", "lorikeet")
PROGRAM = SANITIZED if os.path.exists(SANITIZED) and os.path.getmtime(SANITIZED) >= os.path.getmtime(BINARY) else BINARY
NAMES = ("adapter_config.json", "adapter_model.safetensors")


def read_adapter(name="qv_r4"):
    return {n: open(os.path.join(ADAPTERS, name, n), "rb").read() for n in NAMES}


FILES = read_adapter()
WEIGHTS = FILES["adapter_model.safetensors"]
BIG = os.urandom(3 << 20)


def at(folder, files=FILES):
    return {folder + n: data for n, data in files.items()}


class Fetcher:
    def __init__(self, cache, options, env=None):
        self.cache, self.options = str(cache), list(options)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "HF_", "SSL_", "CURL_"))}
        self.env = {**clean, "HOME": self.cache, "ASAN_OPTIONS": "detect_leaks=1", **(env or {})}

    def command(self, url, *more):
        return [PROGRAM, "fetch", url, "--json", "--source-cache", self.cache, *self.options, *more]

    def start(self, url, *more):
        return subprocess.Popen(self.command(url, *more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.env)

    def __call__(self, url, *more):
        run = subprocess.run(self.command(url, *more), capture_output=True, text=True, env=self.env, timeout=100)
        assert "Sanitizer" not in run.stderr, run.stderr
        answer = json.loads(run.stdout)
        assert (run.returncode == 0) == ("path" in answer), run.stderr
        return answer

    def error(self, url, *more):
        answer = self(url, *more)
        assert "error" in answer, answer
        return answer["error"]


def contents(path):
    if os.path.isfile(path):
        return open(path, "rb").read()
    return {n: open(os.path.join(path, n), "rb").read() for n in sorted(os.listdir(path))}


def entries(cache):
    return sorted(os.listdir(os.path.join(str(cache), "entries")))


def partial(cache):
    return sorted(os.listdir(os.path.join(str(cache), "partial")))


@pytest.fixture
def world():
    with World(at("/a/")) as w:
        yield w


@pytest.fixture
def fetch(tmp_path, world):
    return Fetcher(tmp_path / "cache", ["--source-allow", world.url + "/"])


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    return make_certificate(str(tmp_path_factory.mktemp("tls")))


# ---- files and the cache


def test_a_folder_comes_whole_and_loads(fetch, world):
    answer = fetch(world.url + "/a/")
    assert contents(answer["path"]) == FILES
    assert answer["sha256"] == sha256(WEIGHTS) and answer["bytes"] == sum(map(len, FILES.values())) == answer["downloaded"]
    assert subprocess.run([BINARY, "inspect", answer["path"]], capture_output=True, text=True).returncode == 0


def test_asked_again_it_is_only_revalidated(fetch, world):
    first = fetch(world.url + "/a/")
    again = fetch(world.url + "/a/")
    assert again["downloaded"] == 0 and again["path"] == first["path"] and not again["stale"]
    assert world.asked("/a/adapter_model.safetensors")[1]["if-none-match"] == world.etag("/a/adapter_model.safetensors")
    world.files["/a/adapter_model.safetensors"] = WEIGHTS[:-4] + b"\0\1\2\3"
    changed = fetch(world.url + "/a/")
    assert changed["path"] != first["path"] and changed["downloaded"] == len(WEIGHTS)
    assert contents(changed["path"])["adapter_config.json"] == FILES["adapter_config.json"]
    assert contents(first["path"]) == FILES  # an entry never changes


def test_without_entity_tags_it_comes_again_to_the_same_entry(tmp_path):
    with World(at("/a/"), etags=False) as world:
        fetch = Fetcher(tmp_path, ["--source-allow", world.url])
        first, again = fetch(world.url + "/a/"), fetch(world.url + "/a/")
        assert again["downloaded"] == first["downloaded"] > 0 and again["path"] == first["path"]
        assert len(entries(tmp_path)) == 1 and partial(tmp_path) == []


def test_single_files_shards_and_mlx(fetch, world):
    gguf = b"GGUF" + os.urandom(1000)
    index = json.dumps({"weight_map": {"a": "adapter_model-1.safetensors", "b": "adapter_model-2.safetensors",
                                       "c": "adapter_model-1.safetensors"}}).encode()
    world.files.update({"/x/voice.gguf": gguf, "/s/adapter_config.json": b"{}", "/s/adapter_model.safetensors.index.json": index,
                        "/s/adapter_model-1.safetensors": b"one", "/s/adapter_model-2.safetensors": b"two",
                        "/m/adapter_config.json": b"{}", "/m/adapters.safetensors": b"mlx", "/n/adapter_config.json": b"{}",
                        "/n/run7.safetensors": b"seven", "/n/probes.jsonl": b"{}\n"})
    answer = fetch(world.url + "/x/voice.gguf")
    assert answer["path"].endswith("/voice.gguf") and contents(answer["path"]) == gguf
    assert len(contents(fetch(world.url + "/s/")["path"])) == 4
    assert contents(fetch(world.url + "/m/")["path"])["adapters.safetensors"] == b"mlx"
    beside = contents(fetch(world.url + "/n/run7.safetensors")["path"])
    assert beside["adapter_model.safetensors"] == b"seven" and beside["probes.jsonl"] == b"{}\n"
    world.files["/s/adapter_model.safetensors.index.json"] = index.replace(b"adapter_model-2", b"../../x")
    assert "../../x" in fetch.error(world.url + "/s/")["message"]


def test_an_unchanged_entry_serves_when_the_source_is_down_but_not_when_it_says_no(fetch, world, tmp_path):
    first = fetch(world.url + "/a/")
    world.script["/a/adapter_config.json"] = [("status", 503)] * 9
    stale = fetch(world.url + "/a/", "--source-timeout", "3s")
    assert stale["stale"] and stale["path"] == first["path"]
    world.script["/a/adapter_config.json"] = [("status", 403)]
    assert "403" in fetch.error(world.url + "/a/")["message"]
    world.script["/a/adapter_config.json"] = [("status", 404)]
    assert fetch.error(world.url + "/a/")["status"] == "NOT_FOUND"


def test_storage_that_hides_what_is_not_there(fetch, world):
    """A public bucket over https says 403 of a missing key."""
    world.files.update({"/x/v.gguf": b"GGUF", "/x/v.gguf.probes.jsonl": b"{}\n", "/m/adapter_config.json": b"{}",
                        "/m/adapters.safetensors": b"mlx"})
    world.missing = lambda h: h.reply(403, b"<Error><Code>AccessDenied</Code></Error>")
    assert contents(fetch(world.url + "/a/")["path"]) == FILES
    assert contents(fetch(world.url + "/m/")["path"])["adapters.safetensors"] == b"mlx"
    path = fetch(world.url + "/x/v.gguf")["path"]
    assert sorted(contents(os.path.dirname(path))) == ["v.gguf", "v.gguf.probes.jsonl"]
    assert "403" in fetch.error(world.url + "/none/")["message"]


# ---- digests


def test_a_digest_that_is_asked_for(fetch, world):
    good = "#sha256=" + sha256(WEIGHTS)
    wrong = "#sha256=" + "0" * 64
    assert fetch.error(world.url + "/a/" + wrong)["code"] == "sha256_differs"
    first = fetch(world.url + "/a/" + good)
    n = len(world.requests)
    assert fetch(world.url + "/a/" + good)["path"] == first["path"] and len(world.requests) == n  # no question is needed
    assert fetch.error(world.url + "/a/" + wrong)["code"] == "sha256_differs"
    assert "64 hex" in fetch.error(world.url + "/a/#sha256=12")["message"]
    assert "fragment" in fetch.error(world.url + "/a/#main")["message"]


# ---- what goes wrong on the way


def test_503_then_ok_and_a_retry_after(fetch, world):
    world.script["/a/adapter_config.json"] = [("status", 503), ("status", 429, {"Retry-After": "1"})]
    begin = time.monotonic()
    assert contents(fetch(world.url + "/a/")["path"]) == FILES
    assert len(world.asked("/a/adapter_config.json")) == 3 and time.monotonic() - begin >= 1
    world.script["/a/adapter_config.json"] = [("status", 503, {"Retry-After": "900"})]
    assert "--source-timeout" in Fetcher(fetch.cache + "2", fetch.options).error(world.url + "/a/", "--source-timeout", "5s")["message"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_refusal_is_not_asked_twice(fetch, world, status):
    world.script["/a/adapter_config.json"] = [("status", status)] * 3
    error = fetch.error(world.url + "/a/")
    assert str(status) in error["message"] and error["code"] == "source_unreachable"
    assert len(world.asked("/a/adapter_config.json")) == 1


def test_a_reset_in_the_middle_goes_on_from_there(fetch, world):
    world.files["/a/adapter_model.safetensors"] = BIG
    world.script["/a/adapter_model.safetensors"] = [("cut", 1 << 20), ("short", 1 << 20)]
    answer = fetch(world.url + "/a/")
    assert contents(answer["path"])["adapter_model.safetensors"] == BIG
    asked = world.asked("/a/adapter_model.safetensors")
    assert [a.get("range", "").startswith("bytes=") for a in asked] == [False, True, True]
    assert answer["downloaded"] == len(BIG) + len(FILES["adapter_config.json"])


def test_a_file_that_changes_between_two_parts_comes_whole(fetch, world):
    world.files["/a/adapter_model.safetensors"] = BIG
    world.script["/a/adapter_model.safetensors"] = [("cut", 1 << 20), ("wait", 0)]
    process = fetch.start(world.url + "/a/")
    while len(world.asked("/a/adapter_model.safetensors")) < 1:
        time.sleep(0.005)
    other = world.files["/a/adapter_model.safetensors"] = bytes(reversed(BIG))
    out, _ = process.communicate(timeout=60)
    assert contents(json.loads(out)["path"])["adapter_model.safetensors"] in (BIG, other)


def test_a_kill_in_the_middle_leaves_nothing_that_is_used_and_the_rest_is_all_that_comes(fetch, world, tmp_path):
    world.files["/a/adapter_model.safetensors"] = BIG
    world.script["/a/adapter_model.safetensors"] = [("stall", 2 << 20, 20)]
    process = fetch.start(world.url + "/a/")
    part = None
    while not part:
        time.sleep(0.01)
        for folder in partial(fetch.cache) if os.path.isdir(fetch.cache + "/partial") else []:
            name = os.path.join(fetch.cache, "partial", folder, "adapter_model.safetensors.part")
            part = name if os.path.exists(name) and os.path.getsize(name) == 2 << 20 else None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert entries(fetch.cache) == []
    answer = fetch(world.url + "/a/")
    assert contents(answer["path"])["adapter_model.safetensors"] == BIG and sha256(BIG) == answer["sha256"]
    assert answer["downloaded"] == 1 << 20  # the configuration was whole: only its tag was asked for
    assert partial(fetch.cache) == []


def test_kills_at_any_moment(fetch, world):
    world.files["/a/adapter_model.safetensors"] = BIG
    for i in range(12):
        process = fetch.start(world.url + "/a/")
        time.sleep(0.02 + 0.012 * i)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for e in entries(fetch.cache) if os.path.isdir(fetch.cache + "/entries") else []:
            assert contents(os.path.join(fetch.cache, "entries", e))["adapter_model.safetensors"] == BIG
    assert contents(fetch(world.url + "/a/")["path"])["adapter_model.safetensors"] == BIG


def test_orphans_of_yesterday_go(fetch, world):
    fetch(world.url + "/a/")
    for name in ("partial/" + "0" * 32, "partial/." + "1" * 32):
        os.makedirs(os.path.join(fetch.cache, name))
        open(os.path.join(fetch.cache, name, "x.part"), "wb").write(b"x" * 100)
        os.utime(os.path.join(fetch.cache, name), (1e9, 1e9))
    world.files["/b/voice.gguf"] = b"GGUF"
    fetch(world.url + "/b/voice.gguf")
    assert partial(fetch.cache) == []


def test_a_server_that_falls_silent(fetch, world):
    world.script["/a/adapter_model.safetensors"] = [("stall", 10, 30)] * 9
    error = fetch.error(world.url + "/a/", "--source-stall-timeout", "300ms", "--source-timeout", "3s")
    assert error["status"] == "TIMEOUT" and error["code"] == "source_unreachable"


def test_an_end_that_cannot_be_told_from_a_cut_is_refused(fetch, world):
    world.script["/a/adapter_model.safetensors"] = [("unframed",)]
    assert "Content-Length" in fetch.error(world.url + "/a/")["message"]
    world.script["/a/adapter_model.safetensors"] = [("headers", {"Content-Encoding": "gzip"})]
    assert "compresses" in fetch.error(world.url + "/a/")["message"]
    assert entries(fetch.cache) == []


def test_nobody_is_there(fetch, tmp_path):
    error = Fetcher(tmp_path, ["--source-allow", "http://127.0.0.1:9/"]).error("http://127.0.0.1:9/a/", "--source-timeout", "2s")
    assert error["code"] == "source_unreachable"


# ---- limits


def test_too_large_is_seen_before_and_during(fetch, world):
    world.files["/a/adapter_model.safetensors"] = BIG
    error = fetch.error(world.url + "/a/", "--source-limit", "1MiB")
    assert error["code"] == "too_large" and "--source-limit" in error["message"]
    assert len(world.asked("/a/adapter_model.safetensors")) == 1
    assert entries(fetch.cache) == [] and partial(fetch.cache) == []
    world.files["/a/adapter_config.json"] = b" " * (17 << 20)
    assert fetch.error(world.url + "/a/")["code"] == "too_large"


def test_the_cache_keeps_its_budget_and_the_least_recently_used_leaves(fetch, world):
    paths = {}
    limit = ["--source-cache-limit", "1MB"]
    for i in range(3):
        world.files[f"/{i}/v.gguf"] = bytes([i]) * 300_000
        paths[i] = fetch(f"{world.url}/{i}/v.gguf", *limit)["path"]
        os.utime(os.path.dirname(paths[i]), (1e9 + i, 1e9 + i))
    fetch(f"{world.url}/0/v.gguf", *limit)  # is used: 1 is the oldest now
    world.files["/3/v.gguf"] = b"3" * 300_000
    paths[3] = fetch(f"{world.url}/3/v.gguf", *limit)["path"]
    assert [os.path.exists(paths[i]) for i in range(4)] == [True, False, True, True]
    world.files["/4/v.gguf"] = b"4" * 1_100_000
    error = fetch.error(f"{world.url}/4/v.gguf", *limit)
    assert error["code"] == "no_room" and "--source-cache-limit" in error["message"]
    assert [os.path.exists(paths[i]) for i in range(4)] == [True, False, True, True]
    assert fetch(f"{world.url}/1/v.gguf", *limit)["downloaded"] == 300_000


def test_what_is_being_read_does_not_leave(fetch, world):
    import fcntl
    world.files.update({f"/{i}/v.gguf": bytes([i]) * 300_000 for i in range(2)})
    limit = ["--source-cache-limit", "500kB"]
    first = fetch(world.url + "/0/v.gguf", *limit)["path"]
    reader = os.open(os.path.dirname(first), os.O_RDONLY)
    fcntl.flock(reader, fcntl.LOCK_SH)  # as source_fetch's caller holds it
    assert fetch.error(world.url + "/1/v.gguf", *limit)["code"] == "no_room"
    os.close(reader)
    fetch(world.url + "/1/v.gguf", *limit)
    assert not os.path.exists(first)


def test_a_damaged_entry_is_fetched_again(fetch, world):
    first = fetch(world.url + "/a/")
    with open(os.path.join(first["path"], "adapter_model.safetensors"), "r+b") as f:
        f.truncate(100)
    again = fetch(world.url + "/a/")
    assert contents(again["path"]) == FILES


def test_two_at_once_share_one_download(fetch, world):
    world.files["/a/adapter_model.safetensors"] = BIG
    world.script["/a/adapter_model.safetensors"] = [("wait", 0.3)]
    both = [fetch.start(world.url + "/a/") for _ in range(2)]
    answers = [json.loads(p.communicate(timeout=60)[0]) for p in both]
    assert answers[0]["path"] == answers[1]["path"]
    assert sorted(a["downloaded"] > 0 for a in answers) == [False, True]


# ---- who may be asked


@pytest.mark.parametrize("url, words", [
    ("file:///etc/passwd", "https://"), ("ftp://127.0.0.1/a/", "https://"), ("https:/x", "PATH"), ("http://127.0.0.1/a", "'/'"),
    ("http://127.0.0.1/a/../b/", ".."), ("http://127.0.0.1/a/%2e%2e/b/", ".."), ("http://127.0.0.1/a b/", "space"),
    ("http://127.0.0.1\\@evil/", "backslash"), ("http://127.0.0.1/a.tar.gz", "archives"), ("hf://org", "hf://org/name"),
    ("hf://org/na me", "space"), ("s3:///x", "s3://"), ("http://127.0.0.1/" + "a" * 3000 + "/", "bytes")])
def test_urls_that_are_refused_by_their_form(tmp_path, url, words):
    run = subprocess.run([PROGRAM, "fetch", url, "--source-cache", str(tmp_path), "--source-allow", "http://127.0.0.1/"],
                         capture_output=True, text=True)
    assert run.returncode != 0 and (words in run.stderr or words == "PATH"), run.stderr


def test_nothing_is_allowed_by_default_and_prefixes_end_at_slashes(tmp_path, world):
    world.files.update(at("/ab/"))
    error = Fetcher(tmp_path, []).error(world.url + "/a/")
    assert error["code"] == "source_not_allowed" and "--source-allow" in error["message"] and world.requests == []
    only = Fetcher(tmp_path, ["--source-allow", world.url + "/a"])
    assert only(world.url + "/a/")["path"]
    for elsewhere in ("/ab/", "/", "/A/"):
        assert only.error(world.url + elsewhere)["code"] == "source_not_allowed"
    assert only.error(world.url.replace("http:", "https:") + "/a/")["code"] == "source_not_allowed"
    assert only.error("http://127.0.0.1:1/a/")["code"] == "source_not_allowed"
    assert only.error("http://127.0.0.1@evil.example/a/")["code"] == "source_not_allowed"


def test_a_redirect_goes_only_where_the_list_says(fetch, world, tmp_path):
    with World(at("/a/")) as other:
        world.script["/r/adapter_config.json"] = [("redirect", other.url + "/a/adapter_config.json")]
        error = fetch.error(world.url + "/r/")
        assert error["code"] == "source_not_allowed" and other.requests == []
        for there in ("file:///etc/passwd", "gopher://127.0.0.1/x", "http://u:p@127.0.0.1/x", "http://169.254.169.254/latest/"):
            world.script["/r/adapter_config.json"] = [("redirect", there)]
            assert fetch.error(world.url + "/r/")["code"] == "source_not_allowed"
        both = Fetcher(tmp_path / "both", [*fetch.options, "--source-allow", other.url + "/"])
        for name in NAMES:
            world.script["/r/" + name] = [("redirect", f"{other.url}/a/{name}")]
        assert contents(both(world.url + "/r/")["path"]) == FILES
        world.script["/r/adapter_config.json"] = [("redirect", "/r/adapter_config.json")] * 9
        assert "redirects" in both.error(world.url + "/r/")["message"]


def test_private_addresses_need_a_host_that_is_named(tmp_path, world):
    port = world.http.server_port
    by_name = f"http://localhost:{port}"
    assert Fetcher(tmp_path / "1", ["--source-allow", by_name + "/"])(by_name + "/a/")["path"]
    world.requests.clear()
    for any_host in (f"http://*.localhost:{port}/", ):
        fetch = Fetcher(tmp_path / "2", ["--source-allow", any_host])
        error = fetch.error(f"http://x.localhost:{port}/a/")
        assert error["code"] in ("source_not_allowed", "source_unreachable") and world.requests == []


def test_credentials_stay_at_home_and_out_of_messages(fetch, world, tmp_path):
    world.user = "me:hush"
    with World(at("/a/")) as other:
        both = Fetcher(tmp_path / "both", [*fetch.options, "--source-allow", other.url + "/"])
        home = world.url.replace("://", "://me:hush@")
        world.script["/a/adapter_model.safetensors"] = []
        error = both.error(world.url + "/a/")
        assert "401" in error["message"]
        assert both(home + "/a/?token=secret")["path"]
        world.files["/c/adapter_config.json"] = FILES["adapter_config.json"]
        answer_once = World.answer

        def answer(h, act):
            if h.clean == "/c/adapter_model.safetensors":
                return h.reply(302, b"", {"Location": other.url + "/a/adapter_model.safetensors"})
            return answer_once(world, h, act)
        world.answer = answer
        assert both(home + "/c/")["path"]
        assert "authorization" not in other.requests[-1][1]
        error = both.error(home + "/nothing/?token=secret")
        assert "hush" not in error["message"] and "secret" not in error["message"]
    for name in os.listdir(both.cache + "/urls"):
        text = open(os.path.join(both.cache, "urls", name)).read()
        assert "hush" not in text and "secret" not in text


def test_https_with_an_own_authority(certificate, tmp_path):
    with World(at("/a/"), tls=certificate) as world:
        allow = ["--source-allow", world.url + "/"]
        assert "certificate" in Fetcher(tmp_path / "1", allow).error(world.url + "/a/")["message"].lower()
        assert contents(Fetcher(tmp_path / "2", [*allow, "--source-ca", certificate[0]])(world.url + "/a/")["path"]) == FILES
        assert Fetcher(tmp_path / "3", allow, {"SSL_CERT_FILE": certificate[0]})(world.url + "/a/")["path"]
        with World(at("/a/")) as plain:  # never back to plain http, whatever the list says
            world.script["/a/adapter_config.json"] = [("redirect", plain.url + "/a/adapter_config.json")]
            down = Fetcher(tmp_path / "4", [*allow, "--source-allow", plain.url + "/", "--source-ca", certificate[0]])
            assert down.error(world.url + "/a/")["code"] == "source_not_allowed" and plain.requests == []


# ---- S3


def s3_fetch(tmp_path, s3, *more, env=None, endpoint=None):
    return Fetcher(tmp_path, ["--source-allow", "s3://models/", "--s3-endpoint", endpoint or s3.url, "--s3-region", s3.region, *more],
                   {"AWS_ACCESS_KEY_ID": s3.key, "AWS_SECRET_ACCESS_KEY": s3.secret, **(env or {})})


def test_s3_with_verified_signatures(tmp_path):
    with S3(at("/models/team a/pt+1/")) as s3:
        fetch = s3_fetch(tmp_path, s3)
        error = fetch.error("s3://models/team a/pt+1/")
        assert "space" in error["message"]
        s3.files = at("/models/team=a/pt+1/")
        answer = fetch("s3://models/team=a/pt+1")
        assert contents(answer["path"]) == FILES
        assert fetch("s3://models/team=a/pt+1/")["downloaded"] == 0
        assert "signature" in s3.asked("/models/team=a/pt+1/adapter_config.json")[0]["authorization"].lower()
        s3.files["/models/v.gguf"] = BIG
        s3.script["/models/v.gguf"] = [("cut", 1 << 20)]
        assert contents(fetch("s3://models/v.gguf")["path"]) == BIG
        assert fetch.error("s3://other/x/")["code"] == "source_not_allowed"


def test_s3_refusals_say_why(tmp_path):
    with S3(at("/models/a/")) as s3:
        wrong = s3_fetch(tmp_path, s3, env={"AWS_SECRET_ACCESS_KEY": "wrong"})
        error = wrong.error("s3://models/a/")
        assert "SignatureDoesNotMatch" in error["message"] and "wrong" not in error["message"]
        unsigned = Fetcher(tmp_path, ["--source-allow", "s3://models/", "--s3-endpoint", s3.url])
        assert "AccessDenied" in unsigned.error("s3://models/a/")["message"]
        assert "AccessDenied" in s3_fetch(tmp_path, s3).error("s3://models/none/")["message"]


def test_s3_session_tokens_hosts_and_checksums(tmp_path):
    with S3(at("/a/"), session="token==") as s3:
        digest = base64.b64encode(hashlib.sha256(WEIGHTS).digest()).decode()
        s3.checksums["/a/adapter_model.safetensors"] = digest
        endpoint = s3.url.replace("127.0.0.1", "{bucket}.localhost")
        env = {"AWS_SESSION_TOKEN": "token=="}
        fetch = s3_fetch(tmp_path, s3, env=env, endpoint=endpoint)
        answer = fetch("s3://models/a/")  # models.localhost is loopback by RFC 6761
        assert contents(answer["path"]) == FILES
        s3.checksums["/a/adapter_model.safetensors"] = base64.b64encode(b"\1" * 32).decode()
        other = s3_fetch(tmp_path / "2", s3, env=env, endpoint=endpoint)
        assert other.error("s3://models/a/")["code"] == "sha256_differs"
        s3.checksums["/a/adapter_model.safetensors"] = base64.b64encode(b"\1" * 32).decode() + "-3"  # of parts
        assert other("s3://models/a/")["path"]


# ---- the hub's layout


@pytest.fixture
def hub():
    commits = {"c" * 40: {**FILES, "sub/v.gguf": b"GGUF" + BIG[:1000], "README.md": b"x"},
               "d" * 40: {**FILES, "README.md": b"y"}, "e" * 40: read_adapter("all_r8_bf16")}
    with World() as store, Hub({"org/voice": {"main": "c" * 40, "v2": "e" * 40, "commits": commits}}, store, token="hf_x") as h:
        yield h


def hub_fetch(tmp_path, hub, *more, env=None, allow="hf://org/"):
    return Fetcher(tmp_path, ["--source-allow", allow, "--hf-endpoint", hub.url, "--source-allow", hub.store.url + "/", *more],
                   {"HF_TOKEN": "hf_x", **(env or {})})


def test_the_hub_is_pinned_to_a_commit_and_its_store_is_checked(hub, tmp_path):
    fetch = hub_fetch(tmp_path, hub)
    first = fetch("hf://org/voice")
    assert contents(first["path"]) == FILES and first["revision"] == "c" * 40
    assert [p for p, _ in hub.requests][1:] == [f"/org/voice/resolve/{'c' * 40}/{n}" for n in (*NAMES[1:], "probes.jsonl", "lorikeet_base.json", "adapter.yaml")]
    assert all("authorization" not in headers for _, headers in hub.store.requests)
    n = len(hub.requests)
    assert fetch("hf://org/voice@main")["downloaded"] <= len(FILES["adapter_config.json"]) and len(hub.requests) == n + 1
    assert fetch("hf://org/voice@" + "c" * 40)["revision"] == "c" * 40
    n = len(hub.requests)
    assert fetch("hf://org/voice@" + "c" * 40)["downloaded"] == 0 and len(hub.requests) == n  # a commit never changes
    stored = len(hub.store.requests)
    hub.repos["org/voice"]["main"] = "d" * 40  # another commit, the same weights: they aren't sent again
    moved = fetch("hf://org/voice")
    assert moved["revision"] == "d" * 40 and moved["path"] == first["path"] and len(hub.store.requests) == stored
    assert contents(fetch("hf://org/voice@v2")["path"]) == read_adapter("all_r8_bf16")
    assert contents(fetch("hf://org/voice/sub/v.gguf@x")["path"] if False else fetch("hf://org/voice@" + "c" * 40 + "/sub/v.gguf")["path"]) \
        == b"GGUF" + BIG[:1000]


def test_the_hub_refuses_and_lies(hub, tmp_path):
    assert "HF_TOKEN" in hub_fetch(tmp_path, hub, env={"HF_TOKEN": "other"}).error("hf://org/voice")["message"]
    fetch = hub_fetch(tmp_path, hub)
    assert "404" in fetch.error("hf://org/none")["message"]
    assert fetch.error("hf://other/voice")["code"] == "source_not_allowed"
    hub.linked["adapter_model.safetensors"] = "1" * 64
    assert fetch.error("hf://org/voice")["code"] == "sha256_differs"
    no_store = Fetcher(tmp_path / "2", ["--source-allow", "hf://", "--hf-endpoint", hub.url], {"HF_TOKEN": "hf_x"})
    assert no_store.error("hf://org/voice")["code"] == "source_not_allowed"


def test_a_token_from_its_file(hub, tmp_path):
    (tmp_path / "token").write_text("hf_x\n")
    assert hub_fetch(tmp_path / "c", hub, env={"HF_TOKEN": "", "HF_TOKEN_PATH": str(tmp_path / "token")})("hf://org/voice")["path"]


def test_the_hub_s_own_cache_folder_is_a_source(tmp_path):
    blobs, snapshot = tmp_path / "models--org--voice" / "blobs", tmp_path / "models--org--voice" / "snapshots" / ("c" * 40)
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name, data in FILES.items():
        (blobs / sha256(data)).write_bytes(data)
        (snapshot / name).symlink_to(os.path.join("..", "..", "blobs", sha256(data)))
    run = subprocess.run([BINARY, "inspect", str(snapshot)], capture_output=True, text=True)
    assert run.returncode == 0 and "adapter (peft)" in run.stdout, run.stderr
