#!/usr/bin/env python3
"""How long a voice takes to be replaced, and what running streams feel of it.

    bench_swap.py [--shape 1b] [--quant q8_0] [--rank 16] [--times 20] [--streams 4] [--seconds 10] [--build build/bench]

A made-up model and adapters for all linear modules (made_model.py; 2.5 GB of disk for 1b, kept for the next time).
"warm": the adapter's bytes are in the page cache; "cold": they were dropped from it just before (posix_fadvise). A swap is
PUT /admin/v1/adapters/x, from the request to its answer: reading, hashing, checking, packing, publishing. The gap is the
longest time between two tokens of a stream, over all streams, next to the same without swaps.
"""
import argparse, asyncio, hashlib, json, os, re, statistics, sys, time

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."), os.path.dirname(os.path.abspath(__file__))]
from harness import ROOT, Server
from made_model import make_adapter, make_model

API = "/admin/v1/adapters"
N_ADAPTERS = 4
CONTEXT = 4096


def files_of(folder):
    return [os.path.join(folder, f) for f in sorted(os.listdir(folder))]


def drop(folder):
    for path in files_of(folder):
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def row(what, times):
    times = sorted(1000 * t for t in times)
    print(f"{what:<42} {times[0]:9.1f} {statistics.median(times):9.1f} {times[-1]:9.1f}")


class Swaps:
    def __init__(self, server, folders):
        self.server, self.folders, self.next = server, folders, 0

    def swap(self, cold=False, **more):
        """Seconds of one replacement, and of the part that the worker says it took."""
        self.next = (self.next + 1) % len(self.folders)
        folder = self.folders[self.next]
        if cold:
            drop(folder)
        begin = time.perf_counter()
        status, answer, _ = self.server.admin("PUT", f"{API}/x", {"source": os.path.basename(folder), **more})
        seconds = time.perf_counter() - begin
        if status not in (200, 201):
            raise SystemExit(f"PUT: {status} {answer}")
        return seconds, answer["report"]["load_ms"] / 1000

    def roll_back(self):
        begin = time.perf_counter()
        status, answer, _ = self.server.admin("POST", f"{API}/x/rollback")
        if status != 200:
            raise SystemExit(f"rollback: {status} {answer}")
        return time.perf_counter() - begin


def floors(folder):
    """What this machine's one thread needs for the two parts that no program can leave out."""
    data, read, hashed = None, [], []
    for _ in range(10):
        begin = time.perf_counter()
        data = [open(path, "rb").read() for path in files_of(folder)]
        read.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        for d in data:
            hashlib.sha256(d).digest()
        hashed.append(time.perf_counter() - begin)
    row("  reading its files alone (Python)", read)
    row("  SHA-256 alone (OpenSSL)", hashed)


class Streams:
    """Streams of `server` until `stop`; every gap between two pieces of a stream."""

    def __init__(self, server):
        self.server, self.gaps = server, []

    async def stream(self):
        body = json.dumps({"model": "x", "prompt": [1, 9, 12, 40], "max_tokens": CONTEXT - 96, "temperature": 0, "ignore_eos": True,
                           "stream": True, "return_token_ids": True}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                     % len(body) + body)
        last, n = None, 0
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head:
            raise SystemExit(f"a stream: {head.decode()}{(await reader.read(1000)).decode()}")
        while not self.stop and (part := await reader.read(65536)):
            now = time.perf_counter()
            n += len(re.findall(rb"data: {", part))
            if last and n > 1:
                self.gaps.append(now - last)
            last = now
        writer.close()

    async def run(self, n, seconds, during):
        self.stop, self.gaps = False, []
        tasks = [asyncio.create_task(self.stream()) for _ in range(n)]
        await asyncio.sleep(2)
        self.gaps.clear()
        end = time.monotonic() + seconds
        times = await during(end)
        self.stop = True
        await asyncio.gather(*tasks)
        return times


async def wait_until(end):
    await asyncio.sleep(end - time.monotonic())
    return []


def under_streams(server, swaps, args):
    streams = Streams(server)

    def swapping(**more):
        async def during(end):
            times = []
            while time.monotonic() < end:
                times.append((await asyncio.to_thread(swaps.swap, **more))[0])
                await asyncio.sleep(0.1)
            return times
        return during

    off = {"effect_test": "off"}
    kinds = [("no swaps", wait_until), ("warm swaps, 10 a second at most", swapping(**off)), ("cold swaps", swapping(cold=True, **off)),
             ("warm swaps, effect test", swapping(effect_test="enforce")), ("no swaps, again", wait_until)]
    for n in sorted({1, args.streams}):
        print(f"\n{n} running stream{'s' if n > 1 else ''}: ms between two tokens     median      99 %   longest   swaps: n, ms median")
        for what, during in kinds:
            times = asyncio.run(streams.run(n, args.seconds, during))
            gaps = sorted(1000 * g for g in streams.gaps)
            swapped = f"{len(times):10d} {1000 * statistics.median(times):9.1f}" if times else ""
            print(f"{what:<42} {gaps[len(gaps) // 2]:9.1f} {gaps[len(gaps) * 99 // 100]:9.1f} {gaps[-1]:9.1f} {swapped}", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shape", default="1b")
    p.add_argument("--quant", default="q8_0")
    p.add_argument("--rank", type=int, default=16)
    p.add_argument("--times", type=int, default=20)
    p.add_argument("--streams", type=int, default=4)
    p.add_argument("--seconds", type=float, default=10)
    p.add_argument("--gaps-only", action="store_true")
    p.add_argument("--build", default=os.path.join(ROOT, "build", "bench"))
    args = p.parse_args()
    model = make_model(os.path.join(args.build, args.shape), args.shape)
    root = os.path.join(args.build, f"{args.shape}-r{args.rank}")
    folders = [make_adapter(os.path.join(root, f"a{i}"), args.shape, args.rank, seed=i) for i in range(N_ADAPTERS)]
    size = sum(os.path.getsize(f) for f in files_of(folders[0]))
    extra = ["--quant", args.quant, "--adapter-root", root, "--context", str(CONTEXT), "--log-level", "warn"]
    with Server(model, {"x": folders[0]}, extra, name="base") as server:
        swaps = Swaps(server, folders)
        print(f"{args.shape}, {args.quant}; adapters of rank {args.rank}, all linear modules, bf16: {size / 2**20:.1f} MiB\n")
        if args.gaps_only:
            return under_streams(server, swaps, args)
        print("nothing else runs: ms                           best    median     worst")
        floors(folders[0])
        for what, cold, effect in (("swap, warm", False, "off"), ("swap, cold", True, "off"), ("swap, warm, effect test", False, "enforce")):
            pairs = [swaps.swap(cold, effect_test=effect) for _ in range(args.times)]
            row(what, [a for a, _ in pairs])
        row("rollback to the last good version", [swaps.roll_back() for _ in range(args.times)])
        under_streams(server, swaps, args)


if __name__ == "__main__":
    main()
