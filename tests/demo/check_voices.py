#!/usr/bin/env python3
"""The demo's held-out prompts through the server's HTTP API: the language or behaviour that each voice should show.

Standard library only; demo/prompts.json has the prompts and the words that tell a language, a refusal and the shop.
At least 95 % of each voice's prompts must be right, and every voice must be asked.
"""
import json, os, re, sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, ".."))
from harness import ROOT, Server


def language(text, checks):
    words = re.findall(r"[^\W\d_]+", text.lower())
    counts = sorted(((sum(w in known for w in words), lang) for lang, known in checks["words"].items()), reverse=True)
    return counts[0][1] if counts[0][0] > counts[1][0] else None


def right(expect, reply, checks):
    refuses = all(part in reply for part in checks["refusal"])
    if expect == "refusal":
        return refuses
    if expect == "answer":
        return language(reply, checks) == "en" and not refuses
    if expect == "shop":
        return language(reply, checks) == "en" and any(part in reply for part in checks["shop"])
    return language(reply, checks) == expect.split(":")[1]


def main():
    demo = os.path.join(ROOT, "demo")
    with open(os.path.join(demo, "prompts.json"), encoding="utf-8") as f:
        held_out = json.load(f)
    passed = failed = 0
    counts = {}
    with Server(os.path.join(demo, "model"), None, ["--adapters", os.path.join(demo, "adapters")], name="demo") as server:
        for item in held_out["prompts"]:
            voice = "demo" if item["voice"] == "base" else item["voice"]
            status, answer = server.post("/v1/chat/completions", {
                "model": voice, "temperature": 0, "messages": [{"role": "user", "content": item["prompt"]}]})
            reply = answer["choices"][0]["message"]["content"] if status == 200 else str(answer)
            ok = status == 200 and right(item["expect"], reply, held_out["checks"])
            good, n = counts.get(voice, (0, 0))
            counts[voice] = good + ok, n + 1
            if not ok:
                print(f"{voice}: {item['prompt']!r} wanted {item['expect']}: {reply!r}")
    for voice in ("demo", "pt", "de", "bikeshop", "safety"):
        good, n = counts.get(voice, (0, 0))
        ok = n > 0 and good >= 0.95 * n
        passed, failed = passed + ok, failed + (not ok)
        print(f"{'ok  ' if ok else 'FAIL'} {voice}: {good} of {n} held-out prompts right")
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
