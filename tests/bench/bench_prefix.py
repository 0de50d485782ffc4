"""The prefix cache's worth: time to the first token of a prompt of which all but the end is cached against one that isn't, in
turns, and a chat of several turns with and without.

    python3 tests/bench/bench_prefix.py MODEL.gguf [--tokens 1000] [--rounds 3] [--turns 6] [--threads 2]"""
import argparse, http.client, json, os, random, statistics, sys, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import Server


def first_token_ms(server, ids, n=1, **body):
    """(milliseconds to the first token, the answer's tokens, cached tokens)"""
    c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
    begin, first, tokens, cached = time.perf_counter(), None, [], 0
    c.request("POST", "/v1/completions", json.dumps(
        {"prompt": ids, "max_tokens": n, "temperature": 0, "ignore_eos": True, "stream": True, "return_token_ids": True,
         "stream_options": {"include_usage": True}, **body}), {"Content-Type": "application/json"})
    for line in c.getresponse():
        if not line.startswith(b"data: {"):
            continue
        chunk = json.loads(line[6:])
        if chunk.get("usage"):
            cached = chunk["usage"]["prompt_tokens_details"]["cached_tokens"]
        for choice in chunk["choices"]:
            if choice.get("token_ids"):
                first = first or (time.perf_counter() - begin) * 1e3
                tokens += choice["token_ids"]
    c.close()
    return first, tokens, cached


def cached_against_fresh(server, n, rounds, text):
    shared = text(n)
    first_token_ms(server, shared + text(20))
    fresh, found = [], []
    for _ in range(rounds):  # in turns
        fresh.append(first_token_ms(server, text(n) + text(20))[0])
        for _ in range(3):
            ms, _, cached = first_token_ms(server, shared + text(20))
            assert cached >= n // 32 * 32, cached
            found.append(ms)
    a, b = statistics.median(fresh), statistics.median(found)
    print(f"| {n} + 20 tokens, none cached | {a:.1f} ms |\n| {n} + 20 tokens, {n // 32 * 32} cached | {b:.1f} ms |\n"
          f"| ratio | {a / b:.1f} |", flush=True)


def chat(server, turns, text):
    """The same chat turn by turn, with the cache and without; the same answers."""
    history, rows = text(100), []
    for turn in range(turns):
        history = history + text(100)
        with_ms, answer, cached = first_token_ms(server, history, 24)
        without_ms, same, _ = first_token_ms(server, history, 24, cache_prompt=False)
        assert answer == same
        rows.append((with_ms, without_ms))
        print(f"| turn {turn + 1}: {len(history)} tokens, {cached} cached | {with_ms:.1f} ms, without {without_ms:.1f} ms |",
              flush=True)
        history = history + answer
    print(f"| all turns | {sum(r[0] for r in rows):.0f} ms, without {sum(r[1] for r in rows):.0f} ms |")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("model")
    p.add_argument("--tokens", type=int, default=1000)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--turns", type=int, default=6)
    p.add_argument("--threads", default="2")
    o = p.parse_args()
    rng = random.Random(1)
    with Server(o.model, {}, ["--threads", o.threads, "--context", "4096"], name="base") as server:
        def text(n):
            return [rng.randrange(100, 10000) for _ in range(n)]
        print(f"| {os.path.basename(o.model)} | time to the first token |\n|---|---|")
        cached_against_fresh(server, o.tokens, o.rounds, text)
        if o.turns:
            chat(server, o.turns, text)


if __name__ == "__main__":
    main()
