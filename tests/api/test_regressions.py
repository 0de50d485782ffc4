"""What went wrong elsewhere when adapters came and went on a running server, one test each, named after it.

The defects of llama-server and OpenVINO within a batch are in test_peers_defects.py.
"""
import concurrent.futures, json, os, shutil, socket, threading, time

import pytest

from conftest import ADAPTERS, LLAMA
from fingerprint import make_fingerprint, read_safetensors, write_safetensors
from harness import DATA, Server, ask_ids, unchunk

API = "/admin/v1/adapters"
LONG = [1] + [(7 * k) % 370 + 4 for k in range(60)]  # whole pages of KV, so that there is something to be reused
MARKS = {"red": 40, "green": 41, "blue": 42, "white": 43}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("root")
    for name, token in MARKS.items():
        make_fingerprint(str(folder / name), token)
    for name in ("qv_r4", "rslora_r8", "all_r8_bf16"):
        shutil.copytree(os.path.join(ADAPTERS, name), folder / name)
    return folder


@pytest.fixture(scope="module")
def shared_server(root):
    with Server(LLAMA, {}, ["--adapter-root", str(root), "--threads", "2", "--keep-last-good", "0s"], name="tiny") as s:
        yield s


@pytest.fixture()
def server(shared_server):
    """With no names, before and after: each test finds what it would find on a server of its own."""
    yield shared_server
    for adapter in shared_server.admin("GET", API)[1]["data"]:
        assert shared_server.admin("DELETE", f"{API}/{adapter['name']}")[0] == 200
    at_rest(shared_server)


def put(server, name, source, **more):
    status, answer, _ = server.admin("PUT", f"{API}/{name}", {"source": source, **more})
    assert status in (200, 201), answer
    return answer


def usage(server):
    return server.admin("GET", API)[1]["usage"]


def at_rest(server, resident_bytes=0):
    """Waits until nothing is held that shouldn't be: a final event may be a moment behind its reply."""
    end = time.time() + 10
    while True:
        u = usage(server)
        if (u["n_retired"], u["reserved_bytes"], u["resident_bytes"]) == (0, 0, resident_bytes) or time.time() > end:
            break
        time.sleep(0.02)
    assert (u["n_retired"], u["reserved_bytes"], u["resident_bytes"]) == (0, 0, resident_bytes), u
    return u


def say(server, model, n=6, prompt=(1, 9), **more):
    """The ids, or the status of a refusal."""
    status, answer = server.post("/v1/completions", {"model": model, "prompt": list(prompt), "max_tokens": n, "temperature": 0,
                                                     "ignore_eos": True, "return_token_ids": True, **more})
    return answer["choices"][0]["token_ids"] if status == 200 else status


class Stream:
    """A reply that is read when it's wanted: the request is running meanwhile."""

    def __init__(self, server, model, n_tokens, **more):
        body = json.dumps({"model": model, "prompt": [1, 9], "max_tokens": n_tokens, "temperature": 0, "ignore_eos": True,
                           "stream": True, "return_token_ids": True, **more}).encode()
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        self.socket.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
                            b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.data = b""

    def wait(self, what=b',"token_ids":['):
        while what not in self.data:
            part = self.socket.recv(65536)
            assert part, self.data[-500:]
            self.data += part
        return self

    def ids(self):
        while part := self.socket.recv(65536):
            self.data += part
        self.socket.close()
        assert b"[DONE]" in self.data
        body = unchunk(self.data.partition(b"\r\n\r\n")[2])
        lines = [l[6:] for l in body.split(b"\n") if l.startswith(b"data: {")]
        return [i for l in lines for c in json.loads(l)["choices"] for i in c.get("token_ids", [])]

    def hang_up(self):
        self.socket.close()


def test_vllm_42125_30931_kv_of_the_old_version_after_a_reload_of_the_name(server):
    want = {}
    for source in ("qv_r4", "rslora_r8"):
        put(server, "alone-" + source, source)
        want[source] = ask_ids(server, "alone-" + source, LONG, 10)
    assert want["qv_r4"] != want["rslora_r8"]
    for source in ("qv_r4", "rslora_r8", "qv_r4", "rslora_r8"):
        put(server, "pt", source)
        assert say(server, "pt", 10, LONG) == want[source]
        assert say(server, "pt", 10, LONG) == want[source]  # what it kept itself is its own


def test_vllm_47724_in_flight_request_answered_by_another_tenants_adapter(server):
    put(server, "tenant-a", "red")
    streams = [Stream(server, "tenant-a", 400).wait() for _ in range(3)]
    server.admin("DELETE", f"{API}/tenant-a")
    for name, source in (("tenant-b", "green"), ("tenant-c", "blue"), ("tenant-a", "white")):
        put(server, name, source)  # into whatever place became free
        assert say(server, name) == [MARKS[source]] * 6
    for s in streams:
        assert s.ids() == [MARKS["red"]] * 400


def test_vllm_54839_unloading_freed_nothing(server):
    put(server, "pt", "all_r8_bf16")
    one = usage(server)["resident_bytes"]
    assert one > 0 and say(server, "pt")
    server.admin("POST", f"{API}/pt/unload")
    at_rest(server)
    assert say(server, "pt")
    at_rest(server, one)
    assert server.admin_request("POST", "/v1/unload_lora_adapter", {"lora_name": "pt"})[0] == 200
    at_rest(server)


def test_vllm_42633_reloading_doubled_the_memory(server):
    put(server, "pt", "red")
    one = usage(server)["resident_bytes"]
    for i in range(20):
        put(server, "pt", ("green", "red")[i % 2])
        assert usage(server)["resident_bytes"] <= 2 * one  # the last good one may still be there
    at_rest_with_last_good(server, one)


def at_rest_with_last_good(server, one):
    end = time.time() + 10  # --keep-last-good 0s: gone with the next tick
    while usage(server)["resident_bytes"] > one and time.time() < end:
        time.sleep(0.05)
    at_rest(server, one)


def test_sglang_36894_unloading_never_returned_after_several_choices(server):
    put(server, "pt", "red")
    status, answer = server.post("/v1/completions", {"model": "pt", "prompt": [1, 9], "max_tokens": 5, "n": 4})
    assert status == 200 and len(answer["choices"]) == 4
    running = [Stream(server, "pt", 300, n=4).wait() for _ in range(2)]
    assert server.admin("DELETE", f"{API}/pt", timeout=10)[0] == 200  # while eight sequences use it
    assert usage(server)["n_retired"] == 1
    for s in running:
        assert s.ids() == [MARKS["red"]] * 1200
    at_rest(server)


def test_sglang_25864_25413_what_was_cancelled_leaked_a_place_or_counted_below_zero(server):
    for round in range(3):
        put(server, "pt", "red", load=False)
        streams = [Stream(server, "pt", 400) for _ in range(8)]  # all wait for one load
        for i, s in enumerate(streams):
            if i % 2:
                s.wait()
            s.hang_up()
        status, _ = server.admin_request("DELETE", f"{API}/pt")
        while status == 503:  # being loaded still
            time.sleep(0.01)
            status, _ = server.admin_request("DELETE", f"{API}/pt")
        assert status == 200
        at_rest(server)
    put(server, "pt", "green")
    assert say(server, "pt") == [MARKS["green"]] * 6


def test_adapter_of_another_base_talked_garbage(server, root):
    put(server, "pt", "red")
    shutil.copytree(os.path.join(DATA, "adapters", "llama", "wrong_base"), root / "wrong_base", dirs_exist_ok=True)
    other = next(f for f in sorted(os.listdir(os.path.join(DATA, "adapters"))) if f != "llama")
    foreign = next(f for f in sorted(os.listdir(os.path.join(DATA, "adapters", other)))
                   if os.path.isdir(os.path.join(DATA, "adapters", other, f)))
    shutil.copytree(os.path.join(DATA, "adapters", other, foreign), root / "foreign", dirs_exist_ok=True)
    for source in ("wrong_base", "foreign"):
        status, answer, _ = server.admin("PUT", f"{API}/pt", {"source": source})
        assert status == 422 and answer["error"]["code"] in ("mismatch", "unsupported", "format"), answer
    assert say(server, "pt") == [MARKS["red"]] * 6


def test_vllm_34186_a_listed_adapter_did_nothing(server, root):
    folder = make_fingerprint(str(root / "nothing"), 40)
    path = os.path.join(folder, "adapter_model.safetensors")
    zeroed = {name: (dtype, shape, bytes(len(data)) if "lora_B" in name else data)
              for name, (dtype, shape, data) in read_safetensors(path).items()}
    write_safetensors(path, zeroed)
    put(server, "pt", "red")
    for name in ("pt", "new"):
        status, answer, _ = server.admin("PUT", f"{API}/{name}", {"source": "nothing", "effect_test": "enforce"})
        assert status == 422 and answer["error"]["code"] == "no_effect" and "no effect" in answer["error"]["message"], answer
    assert say(server, "pt") == [MARKS["red"]] * 6 and say(server, "new") == 404
    assert [m["id"] for m in server.get("/v1/models")[1]["data"]] == ["tiny", "pt"]
    put(server, "told", "nothing", effect_test="warn")
    assert "no effect" in server.log()
    put(server, "pt", "green", effect_test="enforce")
    assert say(server, "pt") == [MARKS["green"]] * 6


def test_what_was_tested_and_published_is_not_tested_at_every_return(server, root):
    shutil.copytree(root / "red", root / "returns", dirs_exist_ok=True)
    def tests():
        line = next(l for l in server.get("/metrics")[1].splitlines() if l.startswith("lorikeet_adapter_effect_tests_total"))
        return int(line.split()[1])

    put(server, "pt", "returns", effect_test="warn")
    assert server.admin("GET", f"{API}/pt/effect")[1]["effect"]["outcome"] == "seen"
    path = root / "returns" / "adapter_model.safetensors"
    for n_tests, token in ((0, "red"), (1, "green"), (0, "green")):
        shutil.copy(root / token / "adapter_model.safetensors", str(path) + ".new")
        os.replace(str(path) + ".new", path)
        server.admin("POST", f"{API}/pt/unload")
        before = tests()
        assert say(server, "pt") == [MARKS[token]] * 6
        assert tests() - before == n_tests
        assert server.admin("GET", f"{API}/pt/effect")[1]["effect"]["outcome"] == "seen"  # as it was found then


def test_vllm_36373_load_inplace_made_every_request_read_the_disk(server, root):
    shutil.copytree(root / "red", root / "gone", dirs_exist_ok=True)
    assert server.admin_request("POST", "/v1/load_lora_adapter",
                                {"lora_name": "pt", "lora_path": "gone", "load_inplace": True})[0] == 200
    loads = usage(server)["n_loads"]
    shutil.rmtree(root / "gone")
    for _ in range(10):
        assert say(server, "pt", 2) == [MARKS["red"]] * 2
    assert usage(server)["n_loads"] == loads


def test_vllm_46287_lorax_798_a_path_led_out_of_the_folder(server, root, tmp_path):
    outside = make_fingerprint(str(tmp_path / "outside"), 50)
    os.symlink(outside, root / "link")
    os.makedirs(root / "linked", exist_ok=True)
    for f in os.listdir(outside):
        os.symlink(os.path.join(outside, f), root / "linked" / f)
    relative = os.path.relpath(outside, root)
    paths = (outside, relative, "red/../../" + os.path.basename(root) + "/../" + os.path.basename(str(tmp_path)) + "/outside",
             "link", "linked", "/etc/passwd", "../../../../etc", "/proc/self/root" + outside, "red/../link", "file://" + outside)
    for path in paths:
        forms = [("PUT", f"{API}/pt", {"source": path}), ("PUT", f"{API}/pt?dry_run=1", {"source": path}),
                 ("POST", "/v1/load_lora_adapter", {"lora_name": "pt", "lora_path": path}),
                 ("POST", "/load_lora_adapter", {"lora_name": "pt", "lora_path": path})]
        for method, url, body in forms:
            status, text = server.admin_request(method, url, body)
            assert 400 <= status < 500, (path, method, url, status, text)
    for model in (outside, relative, "red", "../root/red", "red@../x", "pt/../red", "%2e%2e/red"):
        assert say(server, model) in (400, 404), model  # a request loads nothing from a path
    assert server.admin("GET", API)[1]["data"] == [] and usage(server)["n_resident"] == 0
    os.unlink(root / "link"), shutil.rmtree(root / "linked")


def test_dynamo_11520_admission_raced_with_unloading(server):
    problems, done = [], threading.Event()

    def ask():
        while not done.is_set():
            answer = say(server, "pt", 4)
            if answer != 404 and (not isinstance(answer, list) or len(set(answer)) != 1 or answer[0] not in (40, 41)):
                problems.append(answer)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for t in threads:
        t.start()
    for i in range(30):
        put(server, "pt", ("red", "green")[i % 2])
        assert server.admin_request("DELETE", f"{API}/pt")[0] == 200
    done.set()
    for t in threads:
        t.join(60)
    assert problems == []
    at_rest(server)


def test_requests_that_meet_a_names_first_load_share_it(server):
    for round in range(8):
        before = usage(server)["n_loads"]
        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            loading = pool.submit(put, server, f"pt{round}", "red")
            asked = [pool.submit(say, server, f"pt{round}", 2) for _ in range(40)]
            loading.result()
            assert {tuple(a.result()) if a.result() != 404 else 404 for a in asked} <= {404, (40, 40)}
        assert usage(server)["n_loads"] == before + 1


def test_dynamo_4769_two_loads_of_one_name_at_once(server):
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda i: put(server, "pt", ("red", "green", "blue")[i % 3]), range(12)))
    versions = server.admin("GET", f"{API}/pt/versions")[1]["data"]
    assert len(versions) == len({v["digest"] for v in versions}) == 3
    stable = server.admin("GET", f"{API}/pt")[1]
    assert say(server, "pt")[0] in (40, 41, 42) and stable["generation"] in {a["generation"] for a in answers}
    assert say(server, "pt") == say(server, f"pt@{stable['generation']}")
    assert len(server.admin("GET", API)[1]["data"]) == 1
    forms = [lambda: server.admin("PUT", f"{API}/new", {"source": "red"}, headers={"If-None-Match": "*"})[0]] * 4
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(lambda f: f(), forms)) == [201, 409, 409, 409]


def test_a_restart_forgot_what_was_loaded(root, tmp_path):
    options = ["--adapter-root", str(root), "--threads", "2", "--state", str(tmp_path / "adapters.db")]
    with Server(LLAMA, {}, options, name="tiny") as server:
        for name in ("red", "green"):
            assert server.admin_request("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": name})[0] == 200
        server.kill()
    with Server(LLAMA, {}, options, name="tiny") as server:
        assert {a["name"] for a in server.admin("GET", API)[1]["data"]} == {"red", "green"}
        assert (say(server, "red"), say(server, "green")) == ([40] * 6, [41] * 6)


def test_other_adapters_starved_behind_a_long_stream(server):
    names = list(MARKS) + ["qv_r4", "rslora_r8", "all_r8_bf16"]
    for name in names:
        put(server, name, name)
    long = Stream(server, "red", 480).wait()
    others = [Stream(server, name, 4) for name in names]
    for name, stream in zip(names, others):
        ids = stream.ids()
        assert len(ids) == 4 and (name not in MARKS or ids == [MARKS[name]] * 4)
    assert b"[DONE]" not in long.data
    assert long.ids() == [MARKS["red"]] * 480
