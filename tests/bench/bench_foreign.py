#!/usr/bin/env python3
"""How long the 404 takes for a voice that is another tenant's, and for one that nobody has: asked in turns, in random order.

    tests/bench/bench_foreign.py [--requests 4000] [--tenants 50]

"noise" is the difference of medians between two random halves of the missing ones, the largest of 200 draws: a difference
of the two below it tells nobody anything.
"""
import argparse, http.client, json, os, random, statistics, sys, time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE)]
from harness import DATA, Server

LLAMA = os.path.join(DATA, "models", "llama", "f32")
SHOWN = os.path.join(DATA, "adapters", "llama", "shows_A")


def ask(connection, method, path, body, key):
    begin = time.perf_counter_ns()
    connection.request(method, path, body, {"Content-Type": "application/json", "Authorization": "Bearer " + key})
    r = connection.getresponse()
    r.read()
    took = time.perf_counter_ns() - begin
    if r.status != 404:
        raise SystemExit(f"{path}: {r.status}")
    return took / 1000


def quantiles(times):
    cut = statistics.quantiles(times, n=100)
    return f"median {cut[49]:7.1f}  quartiles {cut[24]:7.1f} {cut[74]:7.1f}  p90 {cut[89]:7.1f}  p99 {cut[98]:8.1f} us"


def noise(times):
    most = 0
    for _ in range(200):
        random.shuffle(times)
        half = len(times) // 2
        most = max(most, abs(statistics.median(times[:half]) - statistics.median(times[half:])))
    return most


def measure(name, server, key, make, n):
    """make(voice): (method, path, body). Names of one length, none a prefix of another."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    times = {"foreign": [], "missing": []}
    for i in range(n + 50):
        order = ["foreign", "missing"]
        random.shuffle(order)
        for kind in order:
            voice = f"voice{random.randrange(8)}" + ("x" if kind == "foreign" else "y")
            took = ask(connection, *make(voice), key)
            if i >= 50:
                times[kind].append(took)
    connection.close()
    print(name)
    for kind, t in times.items():
        print(f"  {kind}: {quantiles(t)}")
    apart = statistics.median(times["foreign"]) - statistics.median(times["missing"])
    print(f"  medians apart {apart:+.2f} us, noise {noise(times['missing']):.2f} us")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--requests", type=int, default=4000)
    p.add_argument("--tenants", type=int, default=50)
    a = p.parse_args()
    state = os.path.join("build", f"bench-foreign-{os.getpid()}.db")
    adapters = {f"voice{i}x": SHOWN for i in range(8)}
    with Server(LLAMA, adapters, ["--threads", "1", "--state", state], name="tiny") as server:
        for i in range(a.tenants):
            server.admin("PUT", f"/admin/v1/tenants/t{i}", {"own_voices": [f"voice{i % 8}x", f"team{i}-*"]})
        server.admin("PUT", "/admin/v1/tenants/asker", {"own_voices": ["mine-*"]})
        key = server.admin("POST", "/admin/v1/keys", {"tenant": "asker", "name": "bench"})[1]["key"]
        chat = [{"role": "user", "content": "Hello"}]
        measure("POST /v1/chat/completions", server, key,
                lambda v: ("POST", "/v1/chat/completions", json.dumps({"model": v, "messages": chat})), a.requests)
        measure("GET /v1/models/NAME", server, key, lambda v: ("GET", "/v1/models/" + v, None), a.requests)
    for name in (state, state + "-wal", state + "-shm"):
        if os.path.exists(name):
            os.remove(name)


if __name__ == "__main__":
    main()
