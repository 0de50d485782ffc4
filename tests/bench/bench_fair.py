#!/usr/bin/env python3
"""Two tenants, each with CLIENTS that always wait for an answer: tokens served to either over SECONDS against their weights.

    tests/bench/bench_fair.py [--seconds 60] [--clients 100] [--weights 1:3] [--sequences 8]
"""
import argparse, http.client, json, os, sys, threading, time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE)]
from harness import DATA, Server

LLAMA = os.path.join(DATA, "models", "llama", "f32")
BODY = json.dumps({"model": "base", "prompt": [1, 30, 31, 32, 50, 51], "max_tokens": 24, "ignore_eos": True})


def client(server, key, until, served, begins):
    """Asks until the end; what came between `begins` and the end counts, prompts too."""
    headers = {"Content-Type": "application/json", "Authorization": "Bearer " + key}
    c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    while time.time() < until:
        c.request("POST", "/v1/completions", BODY, headers)
        r = c.getresponse()
        answer = json.loads(r.read())
        if r.status != 200:
            raise SystemExit(f"{r.status}: {answer}")
        if begins < time.time() < until:
            served.append(answer["usage"]["total_tokens"])
    c.close()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seconds", type=float, default=60)
    p.add_argument("--clients", type=int, default=100)
    p.add_argument("--weights", default="1:3")
    p.add_argument("--sequences", type=int, default=8)
    a = p.parse_args()
    weights = [float(w) for w in a.weights.split(":")]
    state = os.path.join("build", f"bench-fair-{os.getpid()}.db")
    with Server(LLAMA, {}, ["--threads", "1", "--sequences", str(a.sequences), "--state", state], name="tiny") as server:
        keys = []
        for i, w in enumerate(weights):
            server.admin("PUT", f"/admin/v1/tenants/t{i}", {"weight": w})
            keys.append(server.admin("POST", "/admin/v1/keys", {"tenant": f"t{i}", "name": "bench"})[1]["key"])
        served, begins = [[] for _ in weights], time.time() + 3  # when all of them wait
        until = begins + a.seconds
        threads = [threading.Thread(target=client, args=(server, k, until, s, begins))
                   for k, s in zip(keys, served) for _ in range(a.clients)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    for name in (state, state + "-wal", state + "-shm"):
        if os.path.exists(name):
            os.remove(name)
    totals = [sum(s) for s in served]
    for i, (n, w) in enumerate(zip(totals, weights)):
        share, due = n / sum(totals), w / sum(weights)
        print(f"t{i} weight {w:g}: {n} tokens in {a.seconds:g} s, {100 * share:.1f} % of all, "
              f"due {100 * due:.1f} % ({100 * (share / due - 1):+.1f} %)")
    served_ratio, due_ratio = totals[-1] / totals[0], weights[-1] / weights[0]
    print(f"served ratio {served_ratio:.3f}, of weights {due_ratio:g} ({100 * (served_ratio / due_ratio - 1):+.1f} %)")


if __name__ == "__main__":
    main()
