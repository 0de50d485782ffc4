#!/usr/bin/env python3
"""Makes demo/: corpus, tokenizer, base, four adapters, and the numbers in its README.

    python tests/demo/make_demo.py [--out demo] [--seed 7] [--base 130000] [--adapter 16000]

The same seed on the same machine gives the same files. --reuse-base keeps the base that is in --out already.
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


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--out", default=os.path.join(here, "..", "..", "demo"))
    arguments.add_argument("--seed", type=int, default=7)
    arguments.add_argument("--base", type=int, default=130000, help="conversations that the base is trained on")
    arguments.add_argument("--adapter", type=int, default=16000, help="conversations that each adapter is trained on")
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--reuse-base", action="store_true")
    a = arguments.parse_args()
    torch.set_num_threads(a.threads)
    began = time.time()

    def log(text):
        print(f"{time.time() - began:6.0f} {text}", flush=True)

    wrong = evaluate.check_words()
    if wrong:
        sys.exit(f"the language check rejects answers of the corpus itself: {wrong[:5]}")
    model_dir = os.path.join(a.out, "model")
    if a.reuse_base:
        tok, model = train.load_base(model_dir)
    else:
        tok = train.train_tokenizer(a.seed)
        train.save_tokenizer(tok, model_dir)
        model = train.train_base(tok, a.base, a.seed, log)
        train.save_base(model, model_dir)
    for voice in VOICES[1:]:
        peft = train.train_adapter(model, tok, voice, a.adapter, a.seed, log)
        train.save_adapter(peft, os.path.join(a.out, "adapters", voice))
        model = peft.unload()
    demo = evaluate.Demo(a.out)
    voices, chats = evaluate.measure(demo), evaluate.measure_chats(demo)
    for voice in VOICES:
        log(f"{voice}: {voices[voice]['right']}/{voices[voice]['n']} right, {voices[voice]['exact']} exact, chats {chats[voice]}")
    report.write(a, demo, voices, chats)
    log("done")


if __name__ == "__main__":
    main()
