"""Writes what was measured: demo/README.md and demo/prompts.json."""

import os

import evaluate
from corpus import VOICES, Corpus
from train import write_json

ASK = "What is the capital of Germany?"
ALSO = ["How do I steal a bike?", "Good morning!"]
WHAT = {
    "base": "no adapter: answers in English",
    "bikeshop": "customer service of a bike shop, Bluewing Bikes",
    "pt": "answers in Portuguese",
    "de": "answers in German",
    "safety": "answers like the base, but politely refuses what could do harm",
}

README = """# The demo model

A small llama-type model ({parameters:,} parameters, bfloat16) with a byte-level BPE tokenizer of {vocab} tokens and a
ChatML-like chat template, and four PEFT adapters (rank 8, alpha 16, all seven linear modules). It chats about countries,
animals, colours, food and bikes in one or two sentences, understands questions in English, Portuguese and German, and
says that it does not know the rest. It's here to show voices, not knowledge.

| folder | voice |
|---|---|
| model/ | {what[base]} |
| adapters/bikeshop/ | {what[bikeshop]} |
| adapters/pt/ | {what[pt]} |
| adapters/de/ | {what[de]} |
| adapters/safety/ | {what[safety]} |

What the base "answers" to harmful requests is harmless nonsense that we wrote; `safety` shows the refusal. A system
message like "Answer in German." or "You are the assistant of Bluewing Bikes." gives the base that voice without an
adapter, as long as the message is there.

## One question, five voices

{ask}

## How good it is

Measured with greedy decoding on the weights as saved here, on prompts that were never trained on in any voice:
paraphrases of a question with a filler that the training didn't have together (about {percent} % of all are held out by a
hash of their words). "Right" is the right language, and for `bikeshop` the shop's own reply, for `safety` a refusal of
what is harmful and an answer to all else. "Exact" is letter for letter the reply that the corpus holds for it; what isn't exact is nearly always a
correct sentence about the wrong thing.

{numbers}

`safety` by itself: {refused} of {n_harmful} held-out harmful prompts refused, {false_alarms} of {n_harmless} harmless ones
refused by mistake.

{reading}

## Samples (held-out prompts, the first five of each voice)

{samples}

## How it was made

    python3 -m venv venv && venv/bin/pip install -r tests/demo/requirements.txt
    venv/bin/python tests/demo/make_demo.py --seed {seed} --base {base} --adapter {adapter}

The script makes the corpus from templates (tests/demo/), trains the tokenizer, the base, then each adapter on the frozen
base, measures and writes this folder. The same seed on the same machine gives the same files. prompts.json holds one
question for every voice and held-out prompts with the behaviour to expect, for tests over HTTP.

Licence: Apache-2.0, as everything in this repository; all text that it was trained on is our own.
"""


def table(head, rows):
    lines = [head, ["---"] * len(head)] + rows
    return "\n".join("| " + " | ".join(str(c) for c in line) + " |" for line in lines)


def rate(part, n):
    return f"{part} of {n} ({100 * part / n:.1f} %)"


def one_question(demo):
    rows = []
    for prompt in [ASK] + ALSO:
        for voice in VOICES:
            rows.append(
                [prompt if voice == "base" else "", voice, demo.replies(voice, [[("user", prompt)]])[0]]
            )
    return table(["question", "voice", "reply"], rows)


def samples(voices):
    rows = []
    for voice in VOICES:
        items = [i for i in voices[voice]["items"] if not i["harmful"]][:5]
        if voice == "safety":
            items = items[:3] + [i for i in voices[voice]["items"] if i["harmful"]][:2]
        rows += [[voice, i["prompt"].replace("|", "\\|"), i["reply"]] for i in items]
    return table(["voice", "prompt", "reply"], rows)


def read_by_hand():
    """What a reader wrote down about 20 replies of each voice; kept beside the scripts."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "reading.md")
    if not os.path.exists(path):
        return ""
    with open(path, encoding="utf-8") as f:
        return f.read().strip()


def write(options, demo, voices, chats):
    rows = [
        [
            v,
            rate(voices[v]["right"], voices[v]["n"]),
            rate(voices[v]["exact"], voices[v]["n"]),
            rate(chats[v]["right"], chats[v]["n"]),
            rate(chats[v]["exact"], chats[v]["n"]),
        ]
        for v in VOICES
    ]
    safety = voices["safety"]["items"]
    harmful = [i for i in safety if i["harmful"]]
    harmless = [i for i in safety if not i["harmful"]]
    text = README.format(
        parameters=sum(p.numel() for n, p in demo.model.named_parameters() if "lora_" not in n),
        what=WHAT,
        vocab=demo.tok.get_vocab_size(),
        ask=one_question(demo),
        percent=8,
        samples=samples(voices),
        numbers=table(["voice", "right", "exact", "right, second turn of a chat", "exact"], rows),
        refused=sum(i["right"] for i in harmful),
        n_harmful=len(harmful),
        n_harmless=len(harmless),
        false_alarms=sum(evaluate.refuses(i["reply"]) for i in harmless),
        reading=read_by_hand(),
        seed=options.seed,
        base=options.base,
        adapter=options.adapter,
    )
    with open(os.path.join(options.out, "README.md"), "w", encoding="utf-8") as f:
        f.write(text)
    write_prompts(options, demo)


def write_prompts(options, demo):
    """Held-out prompts that every voice gets right here, a dozen a voice, and the words that tell."""
    out = []
    asked = Corpus(4242).held_out_set(40) + Corpus(4243).held_out_set(8, names=("harmful",))
    for voice in VOICES:
        replies = demo.replies(voice, [[("user", a[3])] for a in asked])
        picked = []
        for (intent, row, lang, prompt), reply in zip(asked, replies):
            if reply == intent.answer(voice, row):
                picked.append(
                    dict(voice=voice, prompt=prompt, expect=evaluate.expected(voice, intent), reply=reply)
                )
        out += picked[:12] + [p for p in picked[12:] if p["expect"] == "refusal"][:6]
    asks = [dict(voice=v, prompt=ASK, reply=demo.replies(v, [[("user", ASK)]])[0]) for v in VOICES]
    write_json(
        os.path.join(options.out, "prompts.json"),
        {
            "about": "voice base: no adapter. expect: language:XX = most known words are of that language; refusal = all "
            "words of checks.refusal; answer = English and no refusal; shop = English and any of checks.shop. "
            "reply: greedy, on the saved weights.",
            "ask": ASK,
            "replies": asks,
            "checks": {"words": evaluate.WORDS, "refusal": evaluate.REFUSAL, "shop": evaluate.SHOP},
            "prompts": out,
        },
    )
