#!/usr/bin/env python3
"""What guessing tokens gains, and what it costs where every guess is wrong: two servers on one model, --speculate off and
auto, the same requests in turn.

    bench_speculation.py MODEL [--streams 1,4] [--rounds 3] [--tokens 160] [--threads 2] [--tasks copy,code,summary,free]

A model with a chat template and real weights gets real tasks (copy a text, change a name in code, sum a text up, write
freely); "free" is sampled at temperature 1, which on a model of random weights is never guessed right. "loop" is greedy
text behind random tokens: models of random weights fall into loops, so its gain says nothing about real ones.
tokens/s are of all streams together while they decode (requests begin together). Both servers must give the same text.
"""
import argparse, concurrent.futures, os, statistics, sys
from random import Random

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import Server

TEXT = ("The lorikeet is a small parrot with a bright green back, a blue head and an orange breast. It lives in flocks along "
        "the eastern coast, where it feeds on nectar and pollen with the brush at the tip of its tongue. In the evening "
        "hundreds of birds gather in tall trees near the river and talk until it is dark. Farmers do not love them, because "
        "a flock can empty an orchard of ripe pears in a single morning, but in the gardens of the city they are welcome "
        "guests, and many people put out bowls of sweet water for them.")
CODE = ("def total_price(items, tax):\n    total = 0\n    for item in items:\n        price = item.price * item.count\n"
        "        if item.discount:\n            price = price - price * item.discount\n        total = total + price\n"
        "    total = total + total * tax\n    return total\n\n\ndef average_price(items, tax):\n    if not items:\n"
        "        return 0\n    return total_price(items, tax) / len(items)\n")
WISH = {"copy": "Repeat the following text word for word:\n\n",
        "code": "Rename the variable total to amount in this Python code and show the whole code again:\n\n",
        "summary": "Summarise the following text in three sentences:\n\n",
        "free": "Write a story about "}
HEROES = "a lighthouse, a clock maker, two brothers, a lost ship, an old bridge, a violin, the last train, a blue door".split(", ")


def wish(task, random):
    """A new text each time: one that was asked before is guessed from what was answered."""
    if task == "code":
        words = random.sample(["price", "weight", "length", "points", "salary", "volume", "amount_left"], 2)
        return WISH[task] + CODE.replace("price", words[0]).replace("tax", words[1])
    if task == "free":
        return WISH[task] + random.choice(HEROES) + " and " + random.choice(HEROES) + "."
    sentences = TEXT.split(". ")
    random.shuffle(sentences)
    return WISH[task] + ". ".join(sentences)


def body(task, seed, n, chat):
    random = Random(seed)
    more = {"max_tokens": n, "ignore_eos": not chat or task == "loop", "temperature": 1 if task == "free" else 0, "seed": seed,
            "timings_per_token": True, "model": "base"}
    if chat and task in WISH:
        return "/v1/chat/completions", {"messages": [{"role": "user", "content": wish(task, random)}], **more}
    return "/v1/completions", {"prompt": [random.randrange(100, 2000) for _ in range(32)], **more}


def ask(server, request):
    status, answer = server.post(*request, timeout=300)
    if status != 200:
        raise SystemExit(f"{status} {answer}")
    choice = answer["choices"][0]
    return choice.get("text") or choice["message"]["content"], answer["timings"]


def run(server, task, seeds, n, chat):
    """Texts, tokens per second, drafts per token, share of them that were right."""
    with concurrent.futures.ThreadPoolExecutor(len(seeds)) as pool:
        answers = list(pool.map(lambda seed: ask(server, body(task, seed, n, chat)), seeds))
    ms = max(t["predicted_ms"] for _, t in answers)
    drafted, right = (sum(t.get(k, 0) for _, t in answers) for k in ("draft_n", "draft_n_accepted"))
    tokens = sum(t["predicted_n"] for _, t in answers)
    return [a for a, _ in answers], 1000 * (tokens - len(seeds)) / ms, drafted / tokens, right / drafted if drafted else 0


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model")
    p.add_argument("--streams", default="1,4")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--tokens", type=int, default=160)
    p.add_argument("--threads", default="2")
    p.add_argument("--tasks", default="copy,code,summary,free,loop")
    o = p.parse_args()
    extra = ["--threads", o.threads, "--context", "2048", "--sequences", "16"]
    with Server(o.model, extra=[*extra, "--speculate", "off"]) as off, \
            Server(o.model, extra=[*extra, "--speculate", "auto"]) as auto:
        chat = off.post("/v1/chat/completions", {"model": "base", "max_tokens": 1, "messages": [
            {"role": "user", "content": "x"}]})[0] == 200
        seed = 1
        print("| task | streams | off, tokens/s | auto, tokens/s | ratio | guesses a token | right |")
        print("|---|---|---|---|---|---|---|")
        for task in o.tasks.split(","):
            for n in map(int, o.streams.split(",")):
                rates, ratios, drafts = ([], []), [], []
                for _ in range(o.rounds):
                    seeds, seed = range(seed, seed + n), seed + n
                    a, b = run(off, task, seeds, o.tokens, chat), run(auto, task, seeds, o.tokens, chat)
                    if a[0] != b[0]:
                        raise SystemExit(f"{task}: the texts differ:\n{a[0]}\n{b[0]}")
                    rates[0].append(a[1])
                    rates[1].append(b[1])
                    ratios.append(b[1] / a[1])
                    drafts.append(b[2:])
                print(f"| {task} | {n} | {statistics.median(rates[0]):.1f} | {statistics.median(rates[1]):.1f} | "
                      f"{statistics.median(ratios):.2f} | {statistics.median(d[0] for d in drafts):.2f} | "
                      f"{100 * statistics.median(d[1] for d in drafts):.0f} % |", flush=True)


if __name__ == "__main__":
    main()
