#!/usr/bin/env python3
"""Makes demo/: corpus, tokenizer, base, four adapters, and the numbers in its README.

    python tests/demo/make_demo.py [--out demo] [--seed 7] [--base 150000] [--adapter 20000] [--reuse base|all]

The same seed on the same machine gives the same files. --reuse base keeps the base that is in --out already and trains
the adapters only; --reuse all only measures and writes README.md and prompts.json.
"""

import argparse
import os
import sys
import time

import torch

import evaluate
import report
import train
from corpus import VOICES


def options():
    here = os.path.dirname(os.path.abspath(__file__))
    a = argparse.ArgumentParser()
    a.add_argument("--out", default=os.path.join(here, "..", "..", "demo"))
    a.add_argument("--seed", type=int, default=7)
    a.add_argument("--base", type=int, default=150000, help="conversations that the base is trained on")
    a.add_argument(
        "--adapter",
        type=int,
        default=20000,
        help="conversations that each adapter is trained on (bikeshop: twice that, it learns new facts)",
    )
    a.add_argument("--threads", type=int, default=1)
    a.add_argument("--reuse", choices=("none", "base", "all"), default="none")
    return a.parse_args()


def build(a, log):
    model_dir = os.path.join(a.out, "model")
    if a.reuse == "base":
        tok, model = train.load_base(model_dir)
    else:
        tok = train.train_tokenizer(a.seed)
        train.save_tokenizer(tok, model_dir)
        model = train.train_base(tok, a.base, a.seed, log)
        train.save_base(model, model_dir)
    for voice in VOICES[1:]:
        n = a.adapter * (2 if voice == "bikeshop" else 1)
        peft = train.train_adapter(model, tok, voice, n, a.seed, log)
        train.save_adapter(peft, os.path.join(a.out, "adapters", voice))
        model = peft.unload()


def main():
    a = options()
    torch.set_num_threads(a.threads)
    began = time.time()

    def log(text):
        print(f"{time.time() - began:6.0f} {text}", flush=True)

    wrong = evaluate.check_words()
    if wrong:
        sys.exit(f"the language check rejects answers of the corpus itself: {wrong[:5]}")
    if a.reuse != "all":
        build(a, log)
    demo = evaluate.Demo(a.out)
    voices, chats = evaluate.measure(demo), evaluate.measure_chats(demo)
    for voice in VOICES:
        log(
            f"{voice}: {voices[voice]['right']}/{voices[voice]['n']} right, {voices[voice]['exact']} exact, {chats[voice]}"
        )
    report.write(a, demo, voices, chats)
    log("done")


if __name__ == "__main__":
    main()
