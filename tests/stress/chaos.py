"""Everybody at once: operators who change the same few names by every form there is, tenants and keys that come and go, and
clients who ask in every dialect, hang up, and show keys that aren't good.

    chaos.py [--seconds 60] [--seed N] [--state] [--tenants] [--logs FOLDER]     LORIKEET=build/asan/lorikeet (or build/tsan/…)
    last line: N passed, N failed, N skipped (rounds; problems)

The server runs in rounds. Odd ones end by SIGTERM in the middle of it all, even ones at rest: then nothing may be held that
nobody uses, and with --state the next round must begin with what this one ended with. --tenants: keys are needed, by a file
that is written anew before a SIGHUP and, with --state, by the API too.

A problem is: an end with another code than 0, a word of a sanitizer, a 5xx that no document promises, an answer that takes
longer than 30 s, is cut off or says nothing, a token of another version than the answer names, a version that a name can't have
had since the request began, a key that is good when it shouldn't be, or isn't when it should.
"""
import argparse, hashlib, http.client, json, os, random, re, secrets, select, shutil, signal, socket, sys, tempfile, threading, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "api"))
from harness import DATA, Server
from source_server import World as Web

LLAMA = os.path.join(DATA, "models", "llama", "f32")
ADAPTERS = os.path.join(DATA, "adapters", "llama")
API = "/admin/v1/adapters/"
LETTERS = "ABCD"
NAMES = ["n0", "n1", "n2", "f0", "f1"]  # f0 and f1 come from the watched folder, too
OTHER_FILES = ["qv_r4", "all_r8_bf16", "rslora_r8"]  # don't show a letter, take more room
KEPT = ("generation", "digest", "previous", "shadow", "source", "blend", "scale", "pinned", "merge", "effect_test", "traffic")
SECRET = "own-of-root"
TIMEOUT = 30
SANITIZERS = re.compile(r"AddressSanitizer|ThreadSanitizer|LeakSanitizer|UndefinedBehavior|runtime error:|require\(|assert")
FINE = {200, 201, 202, 400, 401, 403, 404, 409, 410, 422, 429, 503}


class SlowWeb(Web):
    """Adapters by URL, from a server that takes its time, and now and then fails."""

    def __init__(self):
        names = ("adapter_config.json", "adapter_model.safetensors")
        super().__init__({f"/{x}/{n}": open(os.path.join(ADAPTERS, "shows_" + x, n), "rb").read() for x in LETTERS for n in names})
        self.http.handle_error = lambda *_: None  # the server under test breaks connections off

    def answer(self, h, act):
        time.sleep(random.random() * 0.3)
        super().answer(h, random.choice((None,) * 20 + (("status", 503), ("cut", 100), ("status", 404))))


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=TIMEOUT)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self.path)


class Key:
    """A client's key, and when it began and ceased to be good."""

    def __init__(self, text, id, tenant):
        self.text, self.id, self.tenant = text, id, tenant
        self.asked_to_end = float("inf")  # from then on it may be refused
        self.ended = float("inf")         # from then on it must be


class World:
    """What is known of the server, over its rounds. Every thread writes here, under the lock."""

    def __init__(self, args, folder):
        self.args, self.folder, self.web = args, folder, SlowWeb()
        self.lock = threading.Lock()
        self.problems, self.counts = [], {}
        self.letters = {}      # generation → the letter it shows, or "" for others
        self.digests = {}      # digest → letter
        self.turns = {n: [] for n in NAMES}  # name → [(sent, answered, kind, generation)]
        self.keys, self.file_keys = [], []
        self.ends = {}         # tenant → [(sent, answered)] of what ends keys
        self.process = None    # the server's
        self.ending = False    # SIGTERM is on its way, or it has ended: connections may break
        self.kept = None       # names as the round before left them

    def problem(self, text):
        with self.lock:
            self.problems.append(text)
            print(f"FAIL {text}", flush=True)

    def broken(self, text):
        """A connection that broke off: of itself, or since the server is no more, which is told at the round's end."""
        for _ in range(10):
            if self.process.poll() is not None:
                self.ending = True
                return
            time.sleep(0.05)
        if not self.ending:
            self.problem(text)

    def count(self, what):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1

    def begin_turn(self, name, kind):
        turn = [time.monotonic(), float("inf"), kind, 0]
        with self.lock:
            self.turns.setdefault(name, []).append(turn)
        return turn

    def learn(self, adapter):
        """A version's letter, by its digest."""
        with self.lock:
            if adapter and adapter.get("digest") in self.digests:
                self.letters[adapter["generation"]] = self.digests[adapter["digest"]]

    def shown_by(self, generation):
        with self.lock:
            return self.letters.get(generation)

    def check_generation(self, name, generation, begin, end):
        """No answer may come from a version that a finished publication had replaced before the request began, as long as
        nothing else has happened to the name since the publication began."""
        with self.lock:
            turns = list(self.turns.get(name, ()))
        done = [t for t in turns if t[2] in ("put", "vllm load", "remove") and t[1] < begin]
        for last in done[-6:]:
            if any(t is not last and t[0] <= end and t[1] >= last[0] for t in turns):
                continue
            if last[2] == "remove" or (last[3] and last[3] != generation):
                near = [(t[2], t[3], round(t[0] - begin, 4), round(t[1] - begin, 4)) for t in turns if t[1] > last[0] - 1]
                self.problem(f"{name}: generation {generation} spoke after {last[2]} of {last[3]} had been answered; the request "
                             f"took {end - begin:.4f} s, changes near it (generation, begin, end): {near}")


# ---- HTTP


def exchange(world, connection, method, path, body=None, headers=None):
    """(status, bytes, headers with lower-case names); None: the server is going down."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    begin = time.monotonic()
    try:
        connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
        reply = connection.getresponse()
        data = reply.read()
        head = {k.lower(): v for k, v in reply.getheaders()}
        if head.get("connection", "").lower() == "close":
            connection.close()
    except (OSError, http.client.HTTPException) as e:
        connection.close()
        time.sleep(0.02)
        world.broken(f"{method} {path} {str(body)[:300]}: {e!r} after {time.monotonic() - begin:.1f} s")
        return None
    check_status(world, reply.status, method, path, body, data)
    return reply.status, data, head


def check_status(world, status, method, path, body, data):
    world.count(str(status))
    from_web = status == 502 and b"source_unreachable" in data or status == 408 and b"another download of it" in data
    if status not in FINE and not from_web:
        world.problem(f"{method} {path} {str(body)[:300]}: {status} {data[:400]!r}")


# ---- operators


class Operator:
    """Changes names, by any form."""

    def __init__(self, world, server, seed):
        self.world, self.server, self.rng = world, server, random.Random(seed)
        self.c = UnixConnection(server.admin_path)

    def ask(self, method, path, body=None, headers=None):
        answer = exchange(self.world, self.c, method, path, body, headers)
        if not answer:
            return 0, {}
        status, data, _ = answer
        try:
            return status, json.loads(data)
        except ValueError:
            return status, data.decode(errors="replace")

    def source(self):
        x = self.rng.random()
        if x < 0.65:
            return "shows_" + self.rng.choice(LETTERS)
        if x < 0.8:
            return f"{self.world.web.url}/{self.rng.choice(LETTERS)}/"
        return self.rng.choice(OTHER_FILES) if x < 0.92 else self.rng.choice(("wrong_base", "nowhere", "../x", "alora_r4/../.."))

    def turn(self, name, kind, method, path, body=None, headers=None):
        t = self.world.begin_turn(name, kind)
        status, answer = self.ask(method, path, body, headers)
        if status // 100 == 2:
            if isinstance(answer, dict):
                report = answer.get("report") or {}
                source = (body or {}).get("source", "") if isinstance(body, dict) else ""
                letter = source[-1:] if source[:6] == "shows_" else source[-2:-1] if source[:4] == "http" else ""
                if letter and report.get("digest"):
                    with self.world.lock:
                        self.world.digests[report["digest"]] = letter
                        self.world.letters[answer["generation"]] = letter
                adapter = answer.get("adapter", answer)
                if isinstance(adapter, dict) and "generation" in adapter:
                    self.world.learn(adapter)
                t[3] = answer.get("generation", 0) if kind == "put" else 0
        else:
            t[2] = "refused " + kind
        if status:
            t[1] = time.monotonic()
        self.world.count(f"{kind} {status // 100}xx" if status else f"{kind} broken off")
        return status, answer

    def run(self, end):
        kinds = [self.put] * 6 + [self.patch, self.remove, self.remove, self.traffic, self.traffic, self.roll_back, self.promote,
                                  self.reload, self.bytes_out, self.bytes_in, self.pin, self.merge, self.vllm, self.vllm,
                                  self.sglang, self.scales, self.look, self.look, self.rescan]
        while time.monotonic() < end and not self.world.ending:
            self.rng.choice(kinds)(self.rng.choice(NAMES))
            if self.rng.random() < 0.3:
                time.sleep(self.rng.random() * 0.02)
        self.c.close()

    def put(self, name):
        rng, x = self.rng, self.rng.random()
        headers = {"If-None-Match": "*"} if rng.random() < 0.05 else {"If-Match": f'"{rng.randrange(400)}"'} if rng.random() < 0.05 else {}
        if x < 0.12:
            self.turn(name, "blend", "PUT", API + name, {"blend": rng.choice(("n0+0.5*n1", "n2", "0.5*n1", f"{name}+n1", "f0+n0"))}, headers)
            return
        if x < 0.2:
            self.turn(name, "register", "PUT", API + name, {"source": self.source(), "load": False}, headers)
            return
        body = {"source": self.source()}
        for key, value in (("pinned", True), ("pinned", False), ("scale", 0.5), ("merge", "auto"), ("merge", "always"), ("effect_test", "off"),
                           ("sha256", "0" * 64)):
            if rng.random() < 0.05:
                body[key] = value
        if x < 0.3:
            self.ask("PUT", API + name + "?dry_run=1", body, headers)
            return
        kind = rng.choice(("put", "put", "put", "canary", "shadow"))
        if kind != "put":
            body["publish"] = kind
        self.turn(name, kind, "PUT", API + name, body, headers)

    def patch(self, name):
        self.ask("PATCH", API + name, {"merge": self.rng.choice(("never", "auto", "always")), "pinned": self.rng.random() < 0.3})

    def pin(self, name):
        self.ask("PUT", f"{API}{name}/pin", {"pinned": self.rng.random() < 0.2})

    def merge(self, name):
        self.ask("PUT", f"{API}{name}/merge", {"merge": self.rng.choice(("never", "never", "auto", "always"))})

    def remove(self, name):
        self.turn(name, "remove", "DELETE", API + name)

    def traffic(self, name):
        body = self.rng.choice(({"stable": 50, "canary": 50}, {"stable": 100}, {"canary": 100}, {"stable": 10}))
        self.turn(name, "traffic", "PUT", f"{API}{name}/traffic", body)

    def roll_back(self, name):
        self.turn(name, "rollback", "POST", f"{API}{name}/rollback")

    def promote(self, name):
        self.turn(name, "promote", "POST", f"{API}{name}/promote", {})

    def reload(self, name):
        self.turn(name, "reload", "POST", f"{API}{name}/reload")

    def bytes_out(self, name):
        self.ask("POST", f"{API}{name}/unload")

    def bytes_in(self, name):
        self.ask("POST", f"{API}{name}/load")

    def vllm(self, name):
        if self.rng.random() < 0.35:
            self.turn(name, "vllm unload", "POST", "/v1/unload_lora_adapter", {"lora_name": name})
        else:
            self.turn(name, "vllm load", "POST", "/v1/load_lora_adapter",
                      {"lora_name": name, "lora_path": self.source(), "load_inplace": self.rng.random() < 0.8})

    def sglang(self, name):
        if self.rng.random() < 0.4:
            self.turn(name, "sglang unload", "POST", "/unload_lora_adapter", {"lora_name": name})
        else:
            self.turn(name, "sglang load", "POST", "/load_lora_adapter", {"lora_name": name, "lora_path": self.source()})

    def scales(self, name):
        self.ask("POST", "/lora-adapters", [{"id": self.rng.randrange(4), "scale": self.rng.choice((0, 0.5, 1))}])

    def rescan(self, name):
        self.ask("POST", "/admin/v1/rescan")

    def look(self, name):
        path = self.rng.choice(("/admin/v1/adapters", "/admin/v1/adapters?since=1", API + name, API + name + "/versions",
                                API + name + "/effect", API + name + "/shadow", API + name + "/traffic", "/metrics", "/v1/models",
                                "/v1/lora_adapters", "/lora-adapters", "/admin/v1/usage?format=csv", "/admin/v1/usage",
                                "/admin/v1/audit", "/admin/v1/served", "/admin/v1/keys", "/admin/v1/tenants"))
        status, answer = self.ask("GET", path)
        if path.endswith("/versions") and status == 200:
            for v in answer["data"]:
                self.world.learn(v)


class Landlord:
    """Makes and ends tenants and keys."""

    def __init__(self, world, server, seed):
        self.o = Operator(world, server, seed)
        self.world, self.rng, self.names = world, self.o.rng, ["t0", "t1", "t2"]

    def settings(self):
        rng = self.rng
        pick = {"voices": [rng.choice(NAMES), "n*"], "aliases": {"assistant": rng.choice(("n0", "n1+0.5*n2", "auto"))},
                "default_voice": rng.choice(NAMES), "system_prompt": "Be brief.", "sampling": {"temperature": 0, "max_tokens": 6},
                "locked": ["temperature"], "requests_per_minute": 50, "tokens_per_minute": 5000, "concurrent_requests": 3,
                "kv_share": 0.3, "loads_per_minute": 20, "resident_bytes": 200000, "context": 64, "cache_group": "g", "weight": 2,
                "priority": "batch", "own_voices": [rng.choice(("mine", "f1"))], "always": rng.choice(("n0", "0.5*n2")),
                "endpoints": ["/v1/*"]}
        chosen = {k: v for k, v in pick.items() if rng.random() < 0.2}
        if "locked" in chosen:
            chosen["sampling"] = pick["sampling"]
        return chosen

    def run(self, end):
        while time.monotonic() < end and not self.world.ending:
            self.rng.choice((self.put, self.make, self.make, self.rotate, self.revoke, self.remove))(self.rng.choice(self.names))
            time.sleep(self.rng.random() * 0.05)
        self.o.c.close()

    def put(self, tenant):
        self.o.ask("PUT", f"/admin/v1/tenants/{tenant}", self.settings())

    def ask_for_key(self, tenant, path, body=None, own_end=None):
        begin = time.monotonic()
        status, answer = self.o.ask("POST", path, body)
        if status != 201:
            return
        key = Key(answer["key"], answer["id"], answer["tenant"])
        with self.world.lock:
            if any(end[1] >= begin and end is not own_end for end in self.world.ends.get(tenant, ())):
                key.asked_to_end = begin  # perhaps by what was asked at the same time
            self.world.keys.append(key)

    def make(self, tenant):
        self.ask_for_key(tenant, "/admin/v1/keys", {"tenant": tenant, "name": self.rng.choice("ab")})

    def of_some(self, tenant):
        with self.world.lock:
            keys = [k for k in self.world.keys if k.tenant == tenant]
        return self.rng.choice(keys) if keys else None

    def blur(self, tenant):
        """All keys of a tenant may end by what comes now; its time, whose end is the caller's to note."""
        now = time.monotonic()
        end = [now, float("inf")]
        with self.world.lock:
            self.world.ends.setdefault(tenant, []).append(end)
            for k in self.world.keys:
                if k.tenant == tenant:
                    k.asked_to_end = min(k.asked_to_end, now)
        return end

    def rotate(self, tenant):
        key = self.of_some(tenant)
        if key:
            end = self.blur(tenant)  # the older one goes, if there are two
            self.ask_for_key(tenant, f"/admin/v1/keys/{key.id}/rotate", own_end=end)
            end[1] = time.monotonic()

    def revoke(self, tenant):
        key = self.of_some(tenant)
        if key:
            key.asked_to_end = min(key.asked_to_end, time.monotonic())
            status, _ = self.o.ask("DELETE", f"/admin/v1/keys/{key.id}")
            if status == 200:
                key.ended = min(key.ended, time.monotonic())

    def remove(self, tenant):
        end = self.blur(tenant)
        with self.world.lock:
            known = [k for k in self.world.keys if k.tenant == tenant]
        status, _ = self.o.ask("DELETE", f"/admin/v1/tenants/{tenant}")
        end[1] = time.monotonic()
        if status == 200:
            for k in known:
                k.ended = min(k.ended, time.monotonic())


def change_folder(world, server, seed, end):
    """The watched folder: a name comes, changes and goes, at once or by and by."""
    rng, folder, at = random.Random(seed), os.path.join(world.folder, "watched"), 0
    while time.monotonic() < end and not world.ending:
        name, letter = rng.choice(("f0", "f1")), rng.choice(LETTERS)
        target, away = os.path.join(folder, name), os.path.join(world.folder, f"away{at}")
        at += 1
        world.begin_turn(name, "folder")  # in force some time later: it stays open
        if os.path.exists(target) and rng.random() < 0.3:
            os.rename(target, away)
        elif os.path.exists(target) and rng.random() < 0.3:
            shutil.copy(os.path.join(ADAPTERS, "shows_" + letter, "adapter_model.safetensors"), target)
        else:
            new = os.path.join(world.folder, "new")
            shutil.copytree(os.path.join(ADAPTERS, "shows_" + letter), new)
            if os.path.exists(target):
                os.rename(target, away)
            os.rename(new, target)
        shutil.rmtree(away, ignore_errors=True)
        time.sleep(rng.random() * 0.4)


def read_events(world, server, seed, end):
    """Readers of changes, who come and go and now and then don't read."""
    rng = random.Random(seed)
    while time.monotonic() < end and not world.ending:
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(TIMEOUT)
                s.connect(server.admin_path)
                s.sendall(b"GET /admin/v1/events?since=%d HTTP/1.1\r\nHost: x\r\n\r\n" % rng.randrange(50))
                if rng.random() < 0.2:
                    time.sleep(rng.random() * 0.5)
                stop = time.monotonic() + rng.random() * 0.5
                while (left := stop - time.monotonic()) > 0 and select.select([s], [], [], left)[0] and s.recv(4096):
                    pass
        except OSError as e:
            time.sleep(0.02)
            world.broken(f"events: {e!r}")


def signal_now_and_then(world, server, seed, end):
    rng = random.Random(seed)
    while time.monotonic() < end and not world.ending:
        time.sleep(rng.random() * 0.5)
        if world.args.tenants:
            write_tenants(world, rng)
        if not world.ending and server.process.poll() is None:
            server.process.send_signal(signal.SIGHUP)


# ---- clients

HELLO = [{"role": "user", "content": "Welches Fahrrad ist das beste, wenn ich jeden Tag zur Arbeit fahre?"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "look", "parameters": SCHEMA}}


class Client:
    def __init__(self, world, server, seed):
        self.world, self.server, self.rng = world, server, random.Random(seed)
        self.c = None

    def run(self, end):
        kinds = [self.completion] * 5 + [self.chat] * 3 + [self.messages, self.responses, self.embeddings, self.ollama, self.llama,
                                                           self.hang_up, self.hang_up, self.strange, self.list, self.foreign]
        while time.monotonic() < end and not self.world.ending:
            self.c = self.c or http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=TIMEOUT)
            self.rng.choice(kinds)()
        if self.c:
            self.c.close()

    def key(self):
        """A header, and the key itself; None: a wrong one, or none."""
        if not self.world.args.tenants:
            return {}, None
        x = self.rng.random()
        with self.world.lock:
            mine = self.world.keys[-5:] if x < 0.4 else self.world.file_keys
            key = self.rng.choice(mine) if mine else None
        if not key or x > 0.95:
            wrong = self.rng.choice(("lk_" + "0" * 12 + "_" + "0" * 64, "x", ""))
            return {"Authorization": "Bearer " + wrong}, None
        return self.rng.choice(({"Authorization": "Bearer " + key.text}, {"x-api-key": key.text})), key

    def ask(self, method, path, body=None, headers=None):
        """exchange, and what the key makes of it."""
        own, key = self.key()
        begin = time.monotonic()
        answer = exchange(self.world, self.c, method, path, body, {**own, **(headers or {})})
        if answer and self.world.args.tenants:
            self.check_key(key, answer[0], begin, path)
        return answer

    def check_key(self, key, status, begin, path):
        now = time.monotonic()
        if key is None and status != 401:
            self.world.problem(f"{path}: {status} without a good key")
        elif key and status == 401 and now < key.asked_to_end:
            self.world.problem(f"{path}: 401 for a good key of {key.tenant}")
        elif key and status != 401 and begin > key.ended:
            self.world.problem(f"{path}: {status} for a revoked key of {key.tenant}")

    def voice(self):
        rng, x = self.rng, self.rng.random()
        if x < 0.7:
            return rng.choice(NAMES)
        return rng.choice(("n0+0.5*n1", "base", "auto", "assistant", "mine", "nobody", f"n0@{rng.randrange(1, 40)}", "n1@zz", "0.5*f0", SECRET))

    def sampling(self):
        return {"temperature": 0, "max_tokens": self.rng.choice((1, 3, 8, 24))}

    def check_text(self, voice, text, head, begin):
        """A name's text is one letter, that of the version in the header."""
        where = f"{voice} (generation {head.get('x-adapter-generation')})"
        if head.get("x-adapter") != voice or voice not in NAMES or "x-adapter-always" in head:
            return
        generation = int(head["x-adapter-generation"])
        letter = self.world.shown_by(generation)
        if letter and set(text) != {letter}:
            self.world.problem(f"{where} says {text[:40]!r}, its files are those of {letter}")
        self.world.check_generation(voice, generation, begin, time.monotonic())

    def completion(self):
        voice, begin = self.voice(), time.monotonic()
        body = {"model": voice, "prompt": self.rng.choice(("x", "the", [1, 9], ["x", "y"])), "ignore_eos": True, **self.sampling()}
        plain = True
        for key, value in (("n", 2), ("logprobs", 2), ("echo", True), ("regex", "[A-D]+"), ("stream", True), ("user", "u")):
            if self.rng.random() < 0.12:
                body[key] = value
                plain &= key in ("n", "logprobs", "user", "stream")
        answer = self.ask("POST", "/v1/completions", body)
        if not answer or answer[0] != 200:
            return
        if body.get("stream"):
            self.check_stream(answer[1], voice, answer[2], begin, plain)
            return
        for choice in json.loads(answer[1])["choices"]:
            if plain:
                self.check_text(voice, choice["text"], answer[2], begin)

    def check_stream(self, data, voice, head, begin, plain):
        if not data.rstrip().endswith(b"[DONE]"):
            if not self.world.ending:
                self.world.problem(f"{voice}: a stream without its end: {data[-300:]!r}")
            return
        texts = {}
        for line in data.split(b"\n"):
            if line.startswith(b"data: {"):
                for choice in json.loads(line[6:]).get("choices", ()):
                    texts[choice["index"]] = texts.get(choice["index"], "") + (choice.get("text") or "")
        for text in texts.values():
            if plain:
                self.check_text(voice, text, head, begin)

    def chat(self):
        body = {"model": self.voice(), "messages": HELLO, **self.sampling()}
        x = self.rng.random()
        if x < 0.15:
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
        elif x < 0.3:
            body.update(tools=[TOOL], tool_choice=self.rng.choice(("auto", "required", "none")))
        elif x < 0.4:
            body["messages"] = HELLO + [{"role": "assistant", "content": "x", "adapter": "n1"}, {"role": "user", "content": "y"}]
        body["stream"] = self.rng.random() < 0.5
        answer = self.ask("POST", self.rng.choice(("/v1/chat/completions", "/v1/m/n0/chat/completions")) if x < 0.8 else
                          "/v1/chat/completions/input_tokens", body)
        if answer and answer[0] == 200 and body["stream"] and x < 0.8 and not answer[1].rstrip().endswith(b"[DONE]") and not self.world.ending:
            self.world.problem(f"chat: a stream without its end: {answer[1][-300:]!r}")

    def messages(self):
        stream = self.rng.random() < 0.5
        answer = self.ask("POST", "/v1/messages", {"model": self.voice(), "messages": HELLO, "stream": stream, **self.sampling()})
        if answer and answer[0] == 200 and stream and b"message_stop" not in answer[1] and not self.world.ending:
            self.world.problem(f"messages: a stream without its end: {answer[1][-300:]!r}")

    def responses(self):
        answer = self.ask("POST", "/v1/responses", {"model": self.voice(), "input": "hello", "max_output_tokens": 16, "temperature": 0,
                                                    "store": self.rng.random() < 0.5, "stream": self.rng.random() < 0.3})
        if answer and answer[0] == 200 and answer[1][:1] == b"{":
            id = json.loads(answer[1])["id"]
            self.ask(self.rng.choice(("GET", "DELETE")), f"/v1/responses/{id}")

    def embeddings(self):
        self.ask("POST", "/v1/embeddings", {"model": self.voice(), "input": ["a", "hello"]})

    def ollama(self):
        if self.rng.random() < 0.5:
            self.ask("POST", "/api/generate", {"model": self.voice(), "prompt": "x", "options": {"num_predict": 4}})
        else:
            self.ask("POST", "/api/chat", {"model": self.voice(), "messages": HELLO, "options": {"num_predict": 4}, "stream": False})

    def llama(self):
        self.ask("POST", "/completion", {"prompt": "x", "n_predict": 4, "lora": [{"id": self.rng.randrange(5), "scale": 1}]})

    def list(self):
        self.ask("GET", self.rng.choice(("/v1/models", "/v1/models/n0", "/api/tags", "/api/ps", "/lora-adapters", "/props", "/slots")))

    def strange(self):
        body = self.rng.choice((b"{", b"[]", b'{"model": 5}', b"{}", b'{"prompt": "x", "max_tokens": -1}', b"\xff\xfe"))
        self.ask("POST", self.rng.choice(("/v1/completions", "/v1/chat/completions", "/v1/messages", "/v1/embeddings")), body)

    def foreign(self):
        """A voice of somebody's own is no voice for others."""
        if not self.world.args.tenants or not self.world.file_keys:
            return
        key = self.rng.choice(self.world.file_keys[1:])
        got = exchange(self.world, self.c, "POST", "/v1/completions", {"model": SECRET, "prompt": "x", "max_tokens": 1},
                       {"Authorization": "Bearer " + key.text})
        if got and got[0] not in (404, 429, 503, 403):
            self.world.problem(f"the voice of another tenant: {got[0]} {got[1][:200]!r}")

    def hang_up(self):
        """A stream that nobody reads to its end."""
        own, _ = self.key()
        body = json.dumps({"model": self.voice(), "prompt": "x", "max_tokens": 100, "stream": True, "ignore_eos": True}).encode()
        head = "".join(f"{k}: {v}\r\n" for k, v in own.items())
        try:
            with socket.create_connection(("127.0.0.1", self.server.port), TIMEOUT) as s:
                s.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{head}"
                          f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
                if self.rng.random() < 0.7:
                    s.recv(self.rng.choice((1, 300, 3000)))
        except OSError as e:
            time.sleep(0.02)
            self.world.broken(f"hang up: {e!r}")
        self.world.count("hung up")


# ---- rounds


def write_tenants(world, rng):
    """The tenants file: root and a few more, whose settings change; their keys stay."""
    lines = ["tenants:"]
    for i, key in enumerate(world.file_keys):
        lines += [f"  - name: {key.tenant}", "    weight: %d" % rng.randrange(1, 4), "    own_voices: [%s]" % (SECRET if i == 0 else "x")]
        if i and rng.random() < 0.5:
            lines.append("    requests_per_minute: %d" % rng.choice((10, 100000)))
        if i and rng.random() < 0.3:
            lines.append("    aliases: [assistant=%s]" % rng.choice(NAMES))
        digest = hashlib.sha256(key.text.encode()).hexdigest()
        lines += ["    keys:", f"      - {{id: {key.id}, name: a, sha256: {digest}}}"]
    path = os.path.join(world.folder, "tenants.yaml")
    with open(path + ".new", "w") as f:
        f.write("\n".join(lines) + "\n")
    os.replace(path + ".new", path)


def operators(world, server, rng, end):
    args = lambda: (world, server, rng.random(), end)
    run = lambda kind: lambda w, s, seed, e: kind(w, s, seed).run(e)
    work = [run(Operator)] * 6 + [change_folder, read_events, read_events, signal_now_and_then]
    if world.args.tenants and world.args.state:
        work += [run(Landlord)] * 2
    return [threading.Thread(target=guard, args=(w, *args())) for w in work + [run(Client)] * 8]


def guard(work, world, server, seed, end):
    try:
        work(world, server, seed, end)
    except Exception as e:
        import traceback
        world.problem(f"{e!r}\n{traceback.format_exc()}")


def kept_names(server):
    _, answer, _ = server.admin("GET", "/admin/v1/adapters")
    return {a["name"]: {k: a.get(k) for k in KEPT} for a in answer["data"] if not a["from_folder"]}


def check_rest(world, server):
    """Nothing is held, and nothing runs or waits."""
    usage = None
    for _ in range(200):
        usage = server.admin("GET", "/admin/v1/adapters")[1]["usage"]
        if (usage["n_retired"], usage["reserved_bytes"]) == (0, 0):
            break
        time.sleep(0.05)
    else:
        world.problem(f"at rest: {usage}")
    if usage["budget_bytes"] and usage["resident_bytes"] > usage["budget_bytes"]:
        world.problem(f"more than the budget: {usage}")
    running = re.findall(r"^lorikeet_(?:sequences_running|sequences_paused|queue_length)\S* ([\d.]+)", server.admin("GET", "/metrics")[1], re.M)
    if len(running) != 3 or any(float(n) for n in running):
        world.problem(f"at rest {running} run, are paused and wait")


def play(world, rng, seconds, number):
    """One life of the server."""
    folder = world.folder
    extra = ["--adapter-root", ADAPTERS, "--adapters", os.path.join(folder, "watched"), "--threads", "2", "--log-level", "info" if world.args.logs else "error",
             "--resident-memory", str(rng.choice((40000, 70000, 200000))), "--load-wait", "300ms", "--keep-last-good", "200ms",
             "--merge-memory", "4MiB", "--sequences", "6", "--auto", "de=n0", "--auto", "default=none",
             "--source-allow", world.web.url + "/", "--source-cache", os.path.join(folder, "cache"), "--source-timeout", "3s",
             "--effect-test", rng.choice(("off", "enforce"))]
    extra += rng.choice(([], ["--queue", "3"], ["--kv-memory", "384KiB"], ["--sequences", "2"], ["--step-tokens", "16"],
                         ["--always", "0.001*" + SECRET], ["--auto-rollback", "1"]))
    if world.args.state:
        extra += ["--state", os.path.join(folder, "state.db"), "--served-log", "1000"]
    if world.args.tenants:
        write_tenants(world, rng)
        extra += ["--tenants", os.path.join(folder, "tenants.yaml")]
    world.ending = False
    for turns in world.turns.values():
        turns.clear()
    if not world.args.state:
        world.letters.clear()  # generations begin anew
    fixed = {SECRET: os.path.join(ADAPTERS, "shows_D")}
    server = Server(LLAMA, fixed, extra, name="tiny", env={"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "detect_leaks=1")})
    with server:
        world.process = server.process
        if world.kept is not None:
            check_kept(world, kept_names(server))
        world.kept = None
        end = time.monotonic() + seconds
        threads = operators(world, server, rng, end)
        for t in threads:
            t.start()
        if number % 2:
            time.sleep(seconds * 0.8)
            world.ending = True
        else:
            for t in threads:
                t.join(seconds + 3 * TIMEOUT)
            if any(t.is_alive() for t in threads):
                world.problem(f"round {number}: somebody has no answer yet")
            if server.process.poll() is None:
                check_rest(world, server)
                world.kept = kept_names(server) if world.args.state else None
        asked = time.monotonic()
        if server.process.poll() is not None:
            world.problem(f"round {number}: the server ended by itself")
        code = server.stop(60)
        if time.monotonic() - asked > 15:
            world.problem(f"round {number}: the end took {time.monotonic() - asked:.0f} s")
        world.ending = True
        for t in threads:
            t.join(2 * TIMEOUT)
        if any(t.is_alive() for t in threads):
            world.problem(f"round {number}: somebody waits for a server that has ended")
        log = server.log()
        if world.args.logs:
            with open(os.path.join(world.args.logs, f"round{number}.log"), "w") as f:
                f.write(log)
        server.killed = True  # its code is looked at here
    if code != 0 or SANITIZERS.search(log):
        found = SANITIZERS.search(log)
        at = max(found.start() - 200, 0) if found else max(len(log) - 3000, 0)
        world.problem(f"round {number}: the server ended with {code}:\n{log[at:at + 6000]}")


def check_kept(world, now):
    for name in sorted(set(now) | set(world.kept)):
        if now.get(name) != world.kept.get(name):
            world.problem(f"{name} was {world.kept.get(name)} and is {now.get(name)} after a restart")


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--seconds", type=float, default=60)
    a.add_argument("--round", type=float, default=6, help="seconds of a round")
    a.add_argument("--seed", type=int, default=int(time.time()))
    a.add_argument("--logs", metavar="FOLDER", help="keep the log of each round, with what was served")
    a.add_argument("--state", action="store_true")
    a.add_argument("--tenants", action="store_true")
    a = a.parse_args()
    rng, folder, begun, number = random.Random(a.seed), tempfile.mkdtemp(prefix="lorikeet-chaos-"), time.time(), 0
    world = World(a, folder)
    os.mkdir(os.path.join(folder, "watched"))
    for tenant in ("root", "left", "right") if a.tenants else ():
        id = secrets.token_hex(6)
        world.file_keys.append(Key(f"lk_{id}_{secrets.token_hex(32)}", id, tenant))
    print(f"seed {a.seed}", flush=True)
    try:
        while time.time() - begun < a.seconds and len(world.problems) < 20:
            number += 1
            play(world, rng, min(a.round, max(1.5, a.seconds - (time.time() - begun))), number)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    n = sum(v for k, v in world.counts.items() if k.isdigit())
    print(f"seed {a.seed}: {number} rounds in {time.time() - begun:.0f} s, {n} answers, {len(world.problems)} problems")
    print(", ".join(f"{world.counts[k]} {k}" for k in sorted(world.counts)))
    print(f"{number} passed, {len(world.problems)} failed, 0 skipped" if n else "0 passed, 1 failed, 0 skipped")
    sys.exit(1 if world.problems or not n else 0)


if __name__ == "__main__":
    main()
