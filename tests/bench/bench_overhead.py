#!/usr/bin/env python3
"""What keys, limits and usage cost: processor time of the server's loop thread a request, with tenants and without, in turns.

Two servers with the tiny golden llama: one open, one with 200 tenants (each with a key, names of its own, limits of requests and
tokens, usage in SQLite). The same requests to both, ROUNDS times N; medians. The share is of a step of STEP_MS (docs/performance.md:
8 streams of 1B Q8_0), with one request ending in every TOKENS steps, as 64-token answers of 8 streams do.

    tests/bench/bench_overhead.py [--rounds 9] [--requests 400] [--step-ms 135] [--tokens 8]
"""
import argparse, http.client, json, os, statistics, sys, time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE)]
from harness import DATA, Server

LLAMA = os.path.join(DATA, "models", "llama", "f32")
BODY = json.dumps({"model": "base", "prompt": [1, 30, 31, 32, 50], "max_tokens": 1, "temperature": 0})


def loop_ns(server):
    """On the processor so far: of the main thread, which is the loop's."""
    pid = server.process.pid
    with open(f"/proc/{pid}/task/{pid}/schedstat") as f:
        return int(f.read().split()[0])


def ask(server, n, key):
    c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    headers = {"Content-Type": "application/json", **({"Authorization": "Bearer " + key} if key else {})}
    begin = loop_ns(server)
    for _ in range(n):
        c.request("POST", "/v1/completions", BODY, headers)
        r = c.getresponse()
        answer = r.read()
        if r.status != 200:
            sys.exit(f"{r.status}: {answer[:300]}")
    c.close()
    return (loop_ns(server) - begin) / n / 1e3


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=9)
    p.add_argument("--requests", type=int, default=400)
    p.add_argument("--step-ms", type=float, default=135)
    p.add_argument("--tokens", type=int, default=8)
    a = p.parse_args()
    flags = ["--threads", "1"]
    with Server(LLAMA, {}, flags, name="tiny") as plain:
        state = os.path.join(plain.dir, "state.db")
        with Server(LLAMA, {}, [*flags, "--state", state], name="tiny") as closed:
            key = None
            for i in range(200):
                name = f"tenant-{i}"
                settings = {"aliases": {"assistant": "base"}, "requests_per_minute": 10**6, "tokens_per_day": 10**9, "concurrent_requests": 64,
                            "sampling": {"top_p": 0.9}}
                status, answer, _ = closed.admin("PUT", f"/admin/v1/tenants/{name}", settings)
                status, answer, _ = closed.admin("POST", "/admin/v1/keys", {"tenant": name, "name": "prod"})
                if status != 201:
                    sys.exit(f"{status}: {answer}")
                key = answer["key"]
            times = {"open": [], "tenants": []}
            for _ in range(a.rounds):
                times["open"].append(ask(plain, a.requests, None))
                times["tenants"].append(ask(closed, a.requests, key))
                time.sleep(0.1)
    medians = {k: statistics.median(v) for k, v in times.items()}
    more = medians["tenants"] - medians["open"]
    for name, v in times.items():
        print(f"{name:8} {statistics.median(v):7.1f} µs of the loop a request ({min(v):.1f} to {max(v):.1f})")
    print(f"keys, limits and usage: {more:.1f} µs a request, {more / a.tokens / a.step_ms / 10:.4f} % of a step of {a.step_ms:g} ms "
          f"when one request in {a.tokens} steps ends")


if __name__ == "__main__":
    main()
