#!/usr/bin/env python3
"""A storm on one server: 12 clients ask in all voices (some hang up), while one voice is replaced 20 times a second.

Every reply of the replaced voice must be all one letter (one version from beginning to end); other voices must give
what they gave at the start; nothing may fail; resident memory and open files must not grow once warm.
"""
import argparse, json, os, random, socket, sys, threading, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import DATA, Server, ask_ids

ADAPTERS = os.path.join(DATA, "adapters", "llama")
VOICES = ("base", "qv_r4", "all_r8_bf16", "rslora_r8")
PROMPT = [1, 40, 41, 42, 43]


def usage(pid):
    with open(f"/proc/{pid}/status") as f:
        rss = next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))
    return rss, len(os.listdir(f"/proc/{pid}/fd"))


class Storm:
    def __init__(self, server):
        self.server, self.end, self.counts, self.problems = server, 0.0, {}, []
        self.expected = {v: ask_ids(server, v, PROMPT, 24) for v in VOICES}

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    def ask(self, seed):
        rng = random.Random(seed)
        while time.time() < self.end and len(self.problems) < 20:
            voice = rng.choice(VOICES + ("shown",))
            if rng.random() < 0.1:
                self.hang_up(voice, rng)
                continue
            ids = ask_ids(self.server, voice, PROMPT, 24)
            right = len(set(ids)) == 1 if voice == "shown" else ids == self.expected[voice]
            self.count("replies")
            if not right:
                self.problems.append(f"{voice}: {ids}")

    def hang_up(self, voice, rng):
        body = json.dumps({"model": voice, "prompt": PROMPT, "max_tokens": 400, "ignore_eos": True, "stream": True}).encode()
        with socket.create_connection(("127.0.0.1", self.server.port)) as s:
            s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
                      + str(len(body)).encode() + b"\r\n\r\n" + body)
            time.sleep(rng.random() * 0.05)
        self.count("hang-ups")

    def reload(self):
        for i in range(10**9):
            if time.time() > self.end:
                return
            status, text = self.server.admin_request("POST", "/v1/load_lora_adapter", {
                "lora_name": "shown", "lora_path": os.path.join(ADAPTERS, "shows_" + "ABCD"[i % 4]), "load_inplace": True})
            self.count("reloads")
            if status != 200:
                self.problems.append(f"reload: {status} {text}")
            time.sleep(0.05)

    def run(self, seconds):
        self.end = time.time() + seconds
        threads = [threading.Thread(target=self.ask, args=(i,)) for i in range(12)] + [threading.Thread(target=self.reload)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--minutes", type=float, default=10)
    minutes = p.parse_args().minutes
    adapters = {v: os.path.join(ADAPTERS, v) for v in VOICES[1:]} | {"shown": os.path.join(ADAPTERS, "shows_A")}
    with Server(os.path.join(DATA, "models", "llama", "f32"), adapters, ["--adapter-root", ADAPTERS]) as server:
        storm = Storm(server)
        storm.run(min(60.0, minutes * 12))
        warm = usage(server.process.pid)
        storm.run(minutes * 60)
        time.sleep(1)
        after = usage(server.process.pid)
    print(f"{storm.counts}; resident {warm[0]} -> {after[0]} KiB, files {warm[1]} -> {after[1]}")
    if after[0] > warm[0] * 1.1 + 4096:
        storm.problems.append("resident memory grew")
    if after[1] > warm[1] + 4:
        storm.problems.append("open files grew")
    for text in storm.problems[:20]:
        print("FAIL", text)
    print(f"{sum(storm.counts.values())} passed, {len(storm.problems)} failed, 0 skipped")
    return 1 if storm.problems else 0


if __name__ == "__main__":
    sys.exit(main())
