#!/usr/bin/env python3
"""Ten thousand registered voices, room for 64 of them, and visitors by Zipf's law.

    bench_zipf.py [--names 10000] [--resident 64] [--clients 8] [--seconds 10] [--exponent 1.0] [--build build/bench]

Start time and memory of a registered name come from servers with and without the folder of names. Then the same traffic in
turns: over all names, of which 64 fit; over the 64 most wanted, all resident. Beside it one stream in a voice of its own runs
on: its longest gap while cold voices come and go, next to its longest gap when all are resident. The model is made up
(made_model.py) and small; adapters are of rank 8 for all linear modules.
"""
import argparse, asyncio, bisect, itertools, json, os, random, statistics, sys, time

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."), os.path.dirname(os.path.abspath(__file__))]
from harness import ROOT, Server
from made_model import make_adapter, make_model

RANK, N_CONTENTS = 8, 64


def make_names(root, shape, n):
    """n folders of hard links to 64 different contents: each name is loaded on its own all the same."""
    real = [make_adapter(os.path.join(root, "real", f"a{k:02d}"), shape, RANK, seed=k) for k in range(N_CONTENTS)]
    many = os.path.join(root, f"names-{n}")
    for i in range(n):
        folder = os.path.join(many, f"v{i:05d}")
        if os.path.isdir(folder):
            continue
        os.makedirs(folder + ".new")
        for f in os.listdir(real[0]):
            os.link(os.path.join(real[i % N_CONTENTS], f), os.path.join(folder + ".new", f))
        os.rename(folder + ".new", folder)
    return many, sum(os.path.getsize(os.path.join(real[0], f)) for f in os.listdir(real[0]))


def resident_kib(server):
    with open(f"/proc/{server.process.pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


class Traffic:
    def __init__(self, server, n_names, args):
        self.server, self.args = server, args
        weights = [1 / (i + 1) ** args.exponent for i in range(n_names)]
        self.sums = list(itertools.accumulate(weights))

    def name(self, rng):
        """Rank 1 is asked for most; neighbours in rank are no neighbours by name."""
        return self.of_rank(bisect.bisect(self.sums, rng.random() * self.sums[-1]))

    def of_rank(self, rank):
        return f"v{rank * 7919 % self.args.names:05d}"

    async def ask(self, body, on_part=None):
        data = json.dumps({"prompt": [1, 9, 12, 40, 41, 42], "temperature": 0, "ignore_eos": True, "stream": True,
                           "return_token_ids": True, **body}).encode()  # most of these ids have no text
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
                     b"Content-Length: %d\r\n\r\n" % len(data) + data)
        begin, first, all_parts = time.perf_counter(), None, []
        while part := await reader.read(65536):
            first = first or time.perf_counter()
            all_parts.append(part)
            if on_part and not on_part():
                break
        writer.close()
        text = b"".join(all_parts)
        if b" 200 " not in text[:20]:
            raise SystemExit(f"{body}: {text[:500].decode()}")
        return (first or time.perf_counter()) - begin

    async def client(self, seed):
        rng = random.Random(seed)
        while time.perf_counter() < self.end:
            self.waits.append(await self.ask({"model": self.name(rng), "max_tokens": 16}))

    async def hot_stream(self):
        last = None

        def part():
            nonlocal last
            now = time.perf_counter()
            if last:
                self.gaps.append(now - last)
            last = now
            return now < self.end
        while time.perf_counter() < self.end:
            last = None
            await self.ask({"model": "hot", "max_tokens": 1000}, part)

    async def run(self, seconds):
        self.waits, self.gaps = [], []
        self.end = time.perf_counter() + seconds
        await asyncio.gather(self.hot_stream(), *[self.client(i) for i in range(self.args.clients)])


def loads(server):
    return server.admin("GET", "/admin/v1/adapters?limit=1")[1]["usage"]


def measure(server, n_names, seconds, args):
    traffic = Traffic(server, n_names, args)
    for rank in range(args.resident - 1, -1, -1):  # what is wanted most is there to begin with
        name = traffic.of_rank(rank)
        status, answer, _ = server.admin("POST", f"/admin/v1/adapters/{name}/load")
        if status != 200:
            raise SystemExit(f"{name}: {status} {answer}")
    before, n_before = loads(server), time.perf_counter()
    asyncio.run(traffic.run(seconds))
    seconds = time.perf_counter() - n_before
    n_loads = loads(server)["n_loads"] - before["n_loads"]
    waits, gaps = sorted(1000 * w for w in traffic.waits), sorted(1000 * g for g in traffic.gaps)
    return {"rate": len(waits) / seconds, "cold": 100 * n_loads / len(waits), "wait": statistics.median(waits),
            "wait99": waits[len(waits) * 99 // 100], "gap": statistics.median(gaps), "gap99": gaps[len(gaps) * 99 // 100],
            "longest": gaps[-1]}


def start(model, hot, extra):
    begin = time.perf_counter()
    server = Server(model, {"hot": hot}, ["--log-level", "warn", "--context", "2048", *extra], name="base")
    server.__enter__()
    return server, time.perf_counter() - begin


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--names", type=int, default=10000)
    p.add_argument("--resident", type=int, default=64)
    p.add_argument("--clients", type=int, default=8)
    p.add_argument("--seconds", type=float, default=10)
    p.add_argument("--turns", type=int, default=2)
    p.add_argument("--exponent", type=float, default=1.0)
    p.add_argument("--shape", default="tiny")
    p.add_argument("--build", default=os.path.join(ROOT, "build", "bench"))
    args = p.parse_args()
    root = os.path.join(args.build, args.shape)
    model = make_model(os.path.join(root, "model"), args.shape)
    many, size = make_names(root, args.shape, args.names)
    hot = os.path.join(root, "real", "a00")
    alone, alone_s = start(model, hot, [])
    one, without = alone.admin("GET", "/admin/v1/adapters/hot")[1]["bytes"], resident_kib(alone)
    alone.__exit__(None, None, None)
    room = (args.resident + 1) * one + one // 2  # and the hot one
    server, start_s = start(model, hot, ["--adapters", many, "--resident-memory", str(room)])
    with_names = resident_kib(server)
    server.admin("PUT", "/admin/v1/adapters/hot/pin", {"pinned": True})
    print(f"{args.names} names, adapters of {size / 1024:.0f} KiB ({one / 1024:.0f} KiB in memory), room for {args.resident}\n")
    print(f"start: {start_s:.2f} s, {alone_s:.2f} s without the names (both with loading the model)")
    print(f"memory of a registered name: {(with_names - without) / args.names:.2f} KiB (resident memory with and without)\n")
    print("                     requests/s   cold %   first token: median  99 % ms   hot stream's gap: median  99 %  longest ms")
    for _ in range(args.turns):
        for what, n in (("all names", args.names), (f"the first {args.resident}", args.resident)):
            m = measure(server, n, args.seconds, args)
            print(f"{what:<20} {m['rate']:10.1f} {m['cold']:8.1f} {m['wait']:22.1f} {m['wait99']:8.1f} {m['gap']:26.2f} "
                  f"{m['gap99']:6.2f} {m['longest']:8.1f}", flush=True)
    usage = loads(server)
    print(f"\n{usage['n_loads']} loads, {usage['n_evictions']} evictions, {usage['resident_bytes']} of {usage['budget_bytes']} bytes in use")
    server.__exit__(None, None, None)


if __name__ == "__main__":
    main()
