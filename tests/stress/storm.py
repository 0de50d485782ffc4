#!/usr/bin/env python3
"""A storm of reloads: 20 names × 2 versions, one replaced every 5 ms, under 32 streams.

    storm.py [--seconds 60] [--interval-ms 5] [--streams 32] [--state] [--no-memory]     LORIKEET=build/tsan/lorikeet

The names' versions are fingerprints: 40 adapters with a token each, so every token says whose it is. Two more names go
back and forth between PEFT adapters that change every layer, whose whole replies are known: a key or value of another
version would show. Changes come by PUT, in vLLM's form, as rollbacks, as removals, and as bytes that leave and come back.

A reply is right if all of its tokens are one version's of the name that was asked for, that version's generation is in the
reply's header, and it was current at some moment between the request and its first token, by the history of what was
acknowledged. A reply must end with its last token; refused is only who asked while the name was gone. At the end nothing is
held that wasn't held before, and memory and open files haven't grown since the storm was warm.
"""
import argparse, asyncio, json, os, random, re, shutil, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from fingerprint import FIRST_TOKEN, make_fingerprint
from harness import DATA, Server, ask_ids, unchunk

GOLDEN = os.path.join(DATA, "adapters", "llama")
N_NAMES, API = 20, "/admin/v1/adapters"
DEEP = ("qv_r4", "all_r8_bf16")
PROMPT, DEEP_PROMPT = [1, 9], [1, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56]
TOKEN_IDS = re.compile(rb'"token_ids":\[([\d,]+)\]')


class Voice:
    """A name, its two versions, and what it was when. One change at a time."""

    def __init__(self, name, sources, tokens, prompt):
        self.name, self.sources, self.tokens, self.prompt = name, sources, tokens, prompt
        self.busy, self.stable, self.previous = False, 0, None
        self.history = [(0.0, 0.0, 0)]  # sent, answered, version: 0, 1, or None while the name is gone
        self.generations = {}

    def begin(self, version):
        """A change may be in force from now on; until it is answered the one before may be, too."""
        self.history.append((time.monotonic(), float("inf"), version))

    def end(self, done):
        sent, _, version = self.history.pop()
        if done:
            self.history.append((sent, time.monotonic(), version))

    def were(self, begin, end):
        """All versions that were current at some moment of [begin, end]."""
        found = set()
        for i, (sent, _, version) in enumerate(self.history):
            until = self.history[i + 1][1] if i + 1 < len(self.history) else float("inf")
            if sent <= end and until >= begin:
                found.add(version)
        return found


class Admin:
    """One operator's connection."""

    def __init__(self, path):
        self.path, self.streams = path, None

    async def ask(self, method, path, body=None):
        if not self.streams:
            self.streams = await asyncio.open_unix_connection(self.path)
        reader, writer = self.streams
        data = json.dumps(body).encode() if body is not None else b""
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: admin\r\nContent-Type: application/json\r\n"
                     f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(re.search(r"content-length: (\d+)", head)[1])
        text = await reader.readexactly(length)
        try:
            return int(head.split()[1]), json.loads(text)
        except ValueError:
            return int(head.split()[1]), text.decode()

    def close(self):
        if self.streams:
            self.streams[1].close()


class Storm:
    def __init__(self, server, voices, args):
        self.server, self.voices, self.args = server, voices, args
        self.rng = random.Random(args.seed)
        self.counts, self.problems, self.pauses, self.longest = {}, [], [], 0.0
        self.replies = []  # checked at the end, when every change has its answer
        self.admins = [Admin(server.admin_path) for _ in range(16)]
        self.idle, self.changes, self.usage = list(self.admins), set(), []

    def count(self, what, n=1):
        self.counts[what] = self.counts.get(what, 0) + n

    def problem(self, text):
        self.problems.append(text)
        if len(self.problems) >= 20:
            self.end = 0

    # ---- streams

    async def stream(self, seed):
        rng = random.Random(seed)
        while time.monotonic() < self.end:
            voice = rng.choice(self.voices)
            n = min(len(voice.tokens[0]), rng.choice((4, 16, 40, 120)))
            begin = time.monotonic()
            try:
                data, first = await self.read_reply(voice, n, rng.random() < 0.02)
            except OSError as e:
                self.problem(f"{voice.name}: {e}")
                continue
            if data:
                self.replies.append((voice, n, begin, first, data))

    async def read_reply(self, voice, n, hang_up):
        body = json.dumps({"model": voice.name, "prompt": voice.prompt, "max_tokens": n, "temperature": 0, "ignore_eos": True,
                           "stream": True, "return_token_ids": True}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
                     b"Content-Length: %d\r\n\r\n" % len(body) + body)
        parts, first, last = [], None, None
        while part := await reader.read(65536):
            now = time.monotonic()
            if last and first:
                self.longest = max(self.longest, now - last)
            last = now
            if not first and b',"token_ids":[' in part:
                first = now
            parts.append(part)
            if hang_up:
                break
        writer.close()
        if hang_up:
            self.count("hung up")
            return None, None
        return b"".join(parts), first or time.monotonic()

    def check_reply(self, voice, n, begin, first, data):
        head, _, body = data.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        were = voice.were(begin, first)
        if status == 404 and None in were:
            self.count("asked while the name was gone")
            return
        if status != 200 or not body:
            self.problem(f"dropped: {voice.name}: {status} {body[:300]}")
            return
        body = unchunk(body)
        tokens = [int(t) for ids in TOKEN_IDS.findall(body) for t in ids.split(b",")]
        generation = int(re.search(rb"X-Adapter-Generation: (\d+)", head)[1])
        self.count("replies")
        self.count("tokens", len(tokens))
        if len(tokens) != n or not body.rstrip().endswith(b"[DONE]"):
            self.problem(f"dropped: {voice.name}: {len(tokens)} tokens of {n}, the end: {body[-200:]}")
            return
        versions = [v for v in (0, 1) if voice.tokens[v][:n] == tokens]
        if not versions:
            self.problem(f"wrong: {voice.name} said {tokens}, knows {[t[:n] for t in voice.tokens]}")
        elif not set(versions) & were:
            self.problem(f"wrong: {voice.name} spoke version {versions} when {were} were current")
        elif voice.generations.get(generation, versions[0]) not in versions:
            self.problem(f"wrong: {voice.name}'s generation {generation} spoke version {versions}")

    # ---- changes

    async def storm(self):
        """One change every interval, late ones not made up for."""
        due = time.monotonic()
        while time.monotonic() < self.end:
            free = [v for v in self.voices if not v.busy]
            if free and self.idle:
                task = asyncio.create_task(self.change(self.rng.choice(free), self.idle.pop()))
                self.changes.add(task)
                task.add_done_callback(self.changes.discard)
            else:
                self.count("no change begun: all busy")
            due = max(due + self.args.interval_ms / 1000, time.monotonic() - 0.05)
            await asyncio.sleep(max(0, due - time.monotonic()))
        await asyncio.gather(*self.changes)

    async def change(self, voice, admin):
        voice.busy = True
        begin = time.monotonic()
        try:
            await self.pick(voice)(voice, admin)
        except (OSError, asyncio.IncompleteReadError) as e:
            self.problem(f"{voice.name}: {e!r}")
        self.pauses.append(time.monotonic() - begin)
        voice.busy = False
        self.idle.append(admin)

    def pick(self, voice):
        x = self.rng.random()
        if x < 0.08 and voice.previous is not None:
            return self.roll_back
        if x < 0.14:
            return self.unload_and_load
        if x < 0.17:
            return self.remove_and_load
        return self.put if x < 0.6 else self.load_as_vllm

    async def publish(self, voice, version, ask):
        voice.begin(version)
        status, answer = await ask
        voice.end(status in (200, 201))
        if status not in (200, 201):
            self.problem(f"change of {voice.name}: {status} {answer}")
            return None
        if version != voice.stable:
            voice.previous, voice.stable = voice.stable, version
        return answer

    async def put(self, voice, admin):
        version = 1 - voice.stable
        answer = await self.publish(voice, version,
                                    admin.ask("PUT", f"{API}/{voice.name}", {"source": voice.sources[version]}))
        if answer:
            voice.generations[answer["generation"]] = version
            self.count("PUT")

    async def load_as_vllm(self, voice, admin):
        version = 1 - voice.stable
        body = {"lora_name": voice.name, "lora_path": voice.sources[version], "load_inplace": True}
        if await self.publish(voice, version, admin.ask("POST", "/v1/load_lora_adapter", body)):
            self.count("vLLM load")

    async def roll_back(self, voice, admin):
        voice.begin(voice.previous)
        status, answer = await admin.ask("POST", f"{API}/{voice.name}/rollback")
        voice.end(status == 200)
        if status == 200:
            voice.stable, voice.previous = voice.previous, voice.stable
            voice.generations[answer["generation"]] = voice.stable
            self.count("rollback")
        else:
            self.problem(f"rollback of {voice.name}: {status} {answer}")

    async def unload_and_load(self, voice, admin):
        for verb in ("unload", "load"):
            status, answer = await admin.ask("POST", f"{API}/{voice.name}/{verb}")
            if status != 200 or (verb == "load" and answer["state"] != "resident"):
                self.problem(f"{verb} of {voice.name}: {status} {answer}")
        self.count("unload, load")

    async def remove_and_load(self, voice, admin):
        voice.begin(None)
        status, answer = await admin.ask("POST", "/v1/unload_lora_adapter", {"lora_name": voice.name})
        voice.end(status == 200)
        if status != 200:
            self.problem(f"removal of {voice.name}: {status} {answer}")
            return
        voice.previous = None
        await self.load_as_vllm(voice, admin)
        voice.previous = None
        self.count("removal")

    # ---- what it costs

    async def watch(self):
        pid = self.server.process.pid
        while time.monotonic() < self.end:
            with open(f"/proc/{pid}/status") as f:
                rss = next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))
            self.usage.append((rss, len(os.listdir(f"/proc/{pid}/fd"))))
            await asyncio.sleep(0.25)

    def check_memory(self):
        half = len(self.usage) // 2
        if half < 4:
            return
        rss = [u[0] for u in self.usage]
        warm, last = max(rss[half // 2:half]), min(rss[-half // 2:])
        fds = max(u[1] for u in self.usage[:half]), max(u[1] for u in self.usage[half:])
        print(f"resident KiB: {rss[0]} at the start, {warm} warm, {last} at the end; open files: at most {fds[0]}, then {fds[1]}")
        if not self.args.no_memory and last > warm + 4096:
            self.problem(f"resident memory went from {warm} to {last} KiB")
        if fds[1] > fds[0] + 8:
            self.problem(f"open files went from {fds[0]} to {fds[1]}")

    async def settle(self, before, n_files):
        """All names at their first version again: what is held then was held before."""
        admin = self.admins[0]
        for voice in self.voices:
            status, answer = await admin.ask("PUT", f"{API}/{voice.name}", {"source": voice.sources[0]})
            if status not in (200, 201):
                self.problem(f"at the end, {voice.name}: {status} {answer}")
        for a in self.admins[1:]:
            a.close()
        for _ in range(200):
            usage = (await admin.ask("GET", API))[1]["usage"]
            files = len(os.listdir(f"/proc/{self.server.process.pid}/fd"))
            same = (usage["n_retired"], usage["reserved_bytes"]) == (0, 0) and usage["resident_bytes"] == before["resident_bytes"]
            if same and files <= n_files:
                return
            await asyncio.sleep(0.1)
        self.problem(f"at rest {usage} and {files} open files, before the storm {before} and {n_files}")

    async def run(self):
        admin = self.admins[0]
        before = (await admin.ask("GET", API))[1]["usage"]
        n_files = len(os.listdir(f"/proc/{self.server.process.pid}/fd"))
        begin = time.monotonic()
        self.end = begin + self.args.seconds
        for voice in self.voices:
            voice.history = [(begin, begin, 0)]
        await asyncio.gather(self.storm(), self.watch(), *[self.stream(self.args.seed * 1000 + i) for i in range(self.args.streams)])
        seconds = time.monotonic() - begin
        for reply in self.replies:
            self.check_reply(*reply)
        self.check_memory()
        await self.settle(before, n_files)
        changes = len(self.pauses)
        self.pauses.sort()
        print(f"{changes} changes in {seconds:.1f} s, one each {1000 * seconds / max(changes, 1):.1f} ms; answered after "
              f"{1000 * self.pauses[changes // 2]:.1f} ms (median), {1000 * self.pauses[changes * 99 // 100]:.1f} ms (99 %)")
        print(", ".join(f"{self.counts[k]} {k}" for k in sorted(self.counts)))
        print(f"longest silence inside a stream: {1000 * self.longest:.0f} ms (as this client saw it)")


def make_voices(root):
    voices = []
    for i in range(N_NAMES):
        tokens = [FIRST_TOKEN + 2 * i, FIRST_TOKEN + 2 * i + 1]
        sources = [f"n{i:02d}-v{v}" for v in (0, 1)]
        for source, token in zip(sources, tokens):
            make_fingerprint(os.path.join(root, source), token)
        voices.append(Voice(f"n{i:02d}", sources, [[t] * 120 for t in tokens], PROMPT))
    for name in DEEP:
        shutil.copytree(os.path.join(GOLDEN, name), os.path.join(root, name))
    return voices


def learn_deep(server, voices):
    """What the two PEFT adapters answer when nothing else happens."""
    known = [ask_ids(server, name, DEEP_PROMPT, 40) for name in DEEP]
    assert known[0][:4] != known[1][:4]
    for name in DEEP:
        assert server.admin("DELETE", f"{API}/{name}")[0] == 200
    for i in range(2):
        assert server.admin("PUT", f"{API}/deep{i}", {"source": DEEP[0]})[0] == 201
        voices.append(Voice(f"deep{i}", list(DEEP), known, DEEP_PROMPT))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seconds", type=float, default=60)
    p.add_argument("--interval-ms", type=float, default=5)
    p.add_argument("--streams", type=int, default=32)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--state", action="store_true", help="with a state file: every change is on the disk before its answer")
    p.add_argument("--no-memory", action="store_true", help="don't judge resident memory (a sanitizer's grows)")
    p.add_argument("--no-effect-test", action="store_true", help="a sanitizer's effect tests are slow: more changes without")
    args = p.parse_args()
    root = tempfile.mkdtemp(prefix="lorikeet-storm-")
    voices = make_voices(root)
    adapters = {v.name: os.path.join(root, v.sources[0]) for v in voices} | {n: os.path.join(root, n) for n in DEEP}
    extra = ["--adapter-root", root, "--threads", "2", "--keep-last-good", "300ms", "--log-level", "warn"]
    if args.no_effect_test:
        extra += ["--effect-test", "off"]
    if args.state:
        extra += ["--state", os.path.join(root, "adapters.db")]
    try:
        with Server(os.path.join(DATA, "models", "llama", "f32"), adapters, extra, name="tiny") as server:
            learn_deep(server, voices)
            storm = Storm(server, voices, args)
            asyncio.run(storm.run())
            for line in server.log().splitlines():
                if " ERROR " in line or "WARNING: ThreadSanitizer" in line:
                    storm.problem("the log: " + line)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    for problem in storm.problems:
        print("FAIL", problem)
    failed = min(len(storm.problems), 1)
    print(f"{1 - failed} passed, {failed} failed, 0 skipped")
    return failed


if __name__ == "__main__":
    sys.exit(main())
