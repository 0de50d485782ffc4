#!/usr/bin/env python3
"""Speed of any OpenAI-style server with mixed adapters, over HTTP (Python's standard library only).

    bench_http.py --url http://127.0.0.1:8080 --base NAME --adapters a,b,c [--batch 1,4,16] [--rounds 3] [--tokens 48]

For each batch size N concurrent streams run base alone, all on the first adapter, and each on its own adapter (round
robin), interleaved. Printed as Markdown: tokens/s of the batch, ratio to base alone, time to first token and the gaps
between tokens (median, p99). Tokens are counted by usage; servers without it by stream events.
"""
import argparse, concurrent.futures, json, statistics, sys, time, urllib.request


def stream(url, model, prompt, n_tokens):
    body = {"model": model, "prompt": prompt, "max_tokens": n_tokens, "temperature": 0, "ignore_eos": True,
            "stream": True, "stream_options": {"include_usage": True}}
    request = urllib.request.Request(url + "/v1/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    start, stamps, used = time.perf_counter(), [], None
    with urllib.request.urlopen(request, timeout=600) as reply:
        for line in reply:
            if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
                continue
            event = json.loads(line[6:])
            if event.get("usage"):
                used = event["usage"]["completion_tokens"]
            if event.get("choices") and event["choices"][0].get("text") is not None:
                stamps.append(time.perf_counter())
    if not stamps:
        raise RuntimeError("the server sent no text event")
    return {"n": used or len(stamps), "ttft": stamps[0] - start, "gaps": [b - a for a, b in zip(stamps, stamps[1:])],
            "start": start, "end": stamps[-1]}


def batch(args, voices):
    with concurrent.futures.ThreadPoolExecutor(len(voices)) as pool:
        prompts = [f"Number {i}: " + "tell me what you know about the weather. " * 4 for i in range(len(voices))]
        results = list(pool.map(lambda job: stream(args.url, job[0], job[1], args.tokens), zip(voices, prompts)))
    seconds = max(r["end"] for r in results) - min(r["start"] for r in results)
    gaps = [g for r in results for g in r["gaps"]] or [0.0]
    return {"rate": sum(r["n"] for r in results) / seconds, "ttft": statistics.median(r["ttft"] for r in results),
            "p50": statistics.median(gaps), "p99": sorted(gaps)[int(0.99 * (len(gaps) - 1))]}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--url", required=True)
    p.add_argument("--base", required=True)
    p.add_argument("--adapters", required=True)
    p.add_argument("--batch", default="1,4,16")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--tokens", type=int, default=48)
    args = p.parse_args()
    args.url = args.url.rstrip("/")
    adapters = args.adapters.split(",")
    kinds = {"base alone": lambda n: [args.base] * n, "one adapter": lambda n: [adapters[0]] * n,
             "own adapter": lambda n: [adapters[i % len(adapters)] for i in range(n)]}
    batch(args, [args.base])
    print("| batch | voices | tokens/s | ratio to base | first token ms | gap p50 ms | gap p99 ms |\n|---|---|---|---|---|---|---|")
    for n in map(int, args.batch.split(",")):
        rounds = [{k: batch(args, make(n)) for k, make in kinds.items()} for _ in range(args.rounds)]
        for k in kinds:
            mid = {f: statistics.median(r[k][f] for r in rounds) for f in ("rate", "ttft", "p50", "p99")}
            ratio = statistics.median(r[k]["rate"] / r["base alone"]["rate"] for r in rounds)
            print(f"| {n} | {k} | {mid['rate']:.1f} | {ratio:.3f} | {mid['ttft']*1e3:.1f} | {mid['p50']*1e3:.2f} | {mid['p99']*1e3:.2f} |",
                  flush=True)


if __name__ == "__main__":
    sys.exit(main())
