#!/usr/bin/env python3
"""Small made tokenizers with what the reference (Hugging Face tokenizers, pinned in requirements.txt) makes of texts.

    tokenizer_cases.py                       writes tests/golden/data/tokenizer_cases.json: each kind of step in turn
    tokenizer_cases.py --seed 7 --out FILE   the same kinds in random order and company, random texts

tests/golden/test_tokenizer_cases.c replays such a file: `build/release/tests/golden/test_tokenizer_cases FILE`.
The vocabularies and texts are our own."""
import argparse
import json
import pathlib
import random

import tokenizers

MARK = "\u2581"
WORDS = ["the", "hello", "world", "don't", "he", "ing", "foo", "bar", "12", "123", "ab", "\n\n", "  ", "é"]


def merges_of(words):
    """Left to right: t+h, th+e, …; each once."""
    merges = []
    for word in words:
        for i in range(1, len(word)):
            pair = [word[:i], word[i]]
            if pair not in merges:
                merges.append(pair)
    return merges


def bpe(symbols, words, **settings):
    merges = merges_of(words)
    vocab = {}
    for text in symbols + [c for w in words for c in w] + [a + b for a, b in merges]:
        vocab.setdefault(text, len(vocab))
    return {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": vocab, "merges": merges, **settings}


def byte_tokens():
    return [f"<0x{i:02X}>" for i in range(256)]


def models():
    stand_ins = ["".join(p for p, _ in tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
                         .pre_tokenize_str(w)) for w in WORDS + [" the", " he"]]
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    marked = [w.replace(" ", MARK) for w in WORDS] + [MARK + "the", MARK + "he"]
    letters = list("abcdefghijklmnopqrstuvwxyz' ") + [MARK]
    pieces = [["<unk>", 0.0]] + [[w, -3.0 - i * 0.7071067811865476] for i, w in enumerate(marked)]
    pieces += [[c, -9.5 - i / 7] for i, c in enumerate(letters) if c not in dict(pieces)]
    dressed = bpe(["<unk>"], ["the", "he"], unk_token="<unk>", end_of_word_suffix="</w>")
    for c in "abcdeht123":
        for text in (c, c + "</w>"):
            dressed["vocab"].setdefault(text, len(dressed["vocab"]))
    dressed["merges"] = [["h", "e</w>"], ["t", "he</w>"], ["1", "2</w>"]]
    for a, b in dressed["merges"]:
        dressed["vocab"].setdefault(a + b, len(dressed["vocab"]))
    return {
        "bytes": bpe(byte_tokens() + ["<unk>"], marked, byte_fallback=True, unk_token="<unk>", fuse_unk=True),
        "level": bpe(alphabet, stand_ins),
        "plain": bpe(["<unk>"] + letters, WORDS, unk_token="<unk>"),
        "dressed": dressed,
        "unigram": {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": False},
        "unigram_bytes": {"type": "Unigram", "unk_id": 0, "byte_fallback": True,
                          "vocab": pieces + [[b, -12.0] for b in byte_tokens()]},
    }


def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def metaspace(scheme, do_split=True):
    return {"type": "Metaspace", "replacement": MARK, "prepend_scheme": scheme, "split": do_split}


def level(prefix, regex):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


BEHAVIORS = ["Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
REGEXES = [r"\s+", r"\p{N}{1,3}", r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}", r"(?i:'s|'t|'ll)| ?\w+", r"[A-Z][a-z]*", r"^\s+",
           r"\s+(?!\S)|\s+", r"[\p{L}&&[^a-f]]+", r"x*", r"\b"]
NORMALIZERS = [{"type": t} for t in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "ByteLevel", "Nmt")]
NORMALIZERS += [{"type": "Strip", "strip_left": a, "strip_right": b} for a, b in ((True, False), (False, True))]
NORMALIZERS += [{"type": "Prepend", "prepend": MARK},
                {"type": "Replace", "pattern": {"String": " "}, "content": MARK},
                {"type": "Replace", "pattern": {"Regex": r"\s{2,}"}, "content": " "},
                {"type": "Replace", "pattern": {"Regex": r"^\s+"}, "content": ""}]
PRE_TOKENIZERS = [level(a, b) for a in (True, False) for b in (True, False)]
PRE_TOKENIZERS += [metaspace(s, d) for s in ("always", "first", "never") for d in (True, False)]
PRE_TOKENIZERS += [split({"Regex": r}) for r in REGEXES] + [split({"String": "he"}, b) for b in BEHAVIORS]
PRE_TOKENIZERS += [split({"Regex": r"\d+"}, b, True) for b in BEHAVIORS]
PRE_TOKENIZERS += [{"type": "Digits", "individual_digits": d} for d in (True, False)]
PRE_TOKENIZERS += [{"type": "Punctuation", "behavior": b} for b in BEHAVIORS]
PRE_TOKENIZERS += [{"type": "Whitespace"}, {"type": "WhitespaceSplit"}, {"type": "CharDelimiterSplit", "delimiter": "o"},
                   {"type": "BertPreTokenizer"}, {"type": "FixedLength", "length": 3}]
BYTES = [{"type": "ByteFallback"}, {"type": "Fuse"}]
UNMARK = {"type": "Replace", "pattern": {"String": MARK}, "content": " "}
DECODERS = [None, level(True, True), {"type": "Fuse"}, {"type": "ByteFallback"}, metaspace("always"), metaspace("never"),
            {"type": "Sequence", "decoders": [UNMARK] + BYTES},
            {"type": "Sequence", "decoders": [UNMARK] + BYTES + [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            {"type": "Strip", "content": "a", "start": 1, "stop": 1}]
TEXTS = ["", " ", "hello world", "  The  world's don't\n\n end. ", "ab12345 foo-bar_x", "caf\u00e9 cafe\u0301 \uac00\u1100\u1161",
         "\u4e2d\u6587\u3002\U0001f469\u200d\U0001f680 \ufb01\u2460", "I'LL he're \t\u00a0x\u3000\r\n", "<s>hello</s> [M] the<x>he",
         "a\u2581b\u2581\u2581 c", "\u0130\u1e9e\u01c5 \u0661\u0662", "foobar foo barfoo <s>\n"]
ADDED = [("<s>", ""), ("</s>", ""), ("[M]", "lr"), ("<x>", "w"), ("foo", "wn"), ("foobar", "n"), ("CAF", "n"), ("bar", "l")]


def added_tokens(vocab, choice):
    """The model's ids for texts that it has, new ones behind its vocabulary for the others, as the reference counts."""
    texts = [p[0] for p in vocab] if isinstance(vocab, list) else list(vocab)
    ids, added = {text: i for i, text in enumerate(texts)}, []
    for text, flags in choice:
        ids.setdefault(text, len(ids))
        added.append({"id": ids[text], "content": text, "single_word": "w" in flags, "lstrip": "l" in flags,
                      "rstrip": "r" in flags, "normalized": "n" in flags, "special": text in ("<s>", "</s>", "[M]")})
    return added


def post_processor(added, kind):
    ids = {a["content"]: a["id"] for a in added}
    if kind == "none" or "<s>" not in ids or "</s>" not in ids:
        return None
    if kind in ("BertProcessing", "RobertaProcessing"):
        more = {"trim_offsets": True, "add_prefix_space": False} if kind[0] == "R" else {}
        return {"type": kind, "sep": ["</s>", ids["</s>"]], "cls": ["<s>", ids["<s>"]], **more}
    template = {"type": "TemplateProcessing", "special_tokens": {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in ("<s>", "</s>")},
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}]}
    return template if kind == "template" else {"type": "Sequence", "processors": [level(True, True), template]}


def sequence(kind, members, steps):
    steps = [s for s in steps if s]
    return None if not steps else steps[0] if len(steps) == 1 else {"type": "Sequence", members: steps}


def fixed_cases():
    """Each step once, on a model that shows what it does."""
    def case(model="bytes", normalizer=None, pre=None, decoder=DECODERS[6], choice=ADDED[:4], post="none"):
        return {"model": model, "normalizer": normalizer, "pre_tokenizer": pre, "decoder": decoder,
                "choice": choice, "post": post}
    yield from (case(normalizer=n, choice=ADDED) for n in NORMALIZERS)
    yield from (case("level" if p["type"] == "ByteLevel" else "bytes", pre=p) for p in PRE_TOKENIZERS)
    yield from (case("level" if d and d["type"] == "ByteLevel" else "bytes", decoder=d) for d in DECODERS)
    yield from (case(post=p) for p in ("template", "sequence", "BertProcessing", "RobertaProcessing"))
    yield case("level", pre=level(False, True), decoder=level(True, True), choice=ADDED, post="sequence")
    yield from (case(m, pre=metaspace("always"), decoder=metaspace("always")) for m in ("unigram", "unigram_bytes"))
    yield from (case(m, pre={"type": "WhitespaceSplit"}, decoder=None) for m in ("plain", "dressed"))
    yield case("bytes", sequence("", "normalizers", [NORMALIZERS[9], NORMALIZERS[10]]), None, DECODERS[7], ADDED, "template")


def random_cases(rng, n):
    for _ in range(n):
        yield {"model": rng.choice(list(models())), "choice": rng.sample(ADDED, rng.randrange(len(ADDED))),
               "normalizer": sequence("", "normalizers", rng.sample(NORMALIZERS, rng.randrange(3))),
               "pre_tokenizer": sequence("", "pretokenizers", rng.sample(PRE_TOKENIZERS, rng.randrange(3))),
               "decoder": rng.choice(DECODERS), "post": rng.choice(["none", "template", "BertProcessing", "sequence"])}


def random_text(rng):
    bits = ["".join(TEXTS)[i:i + 3] for i in range(0, 200, 3)] + WORDS + [t for t, _ in ADDED] + [" ", "\n", "  "]
    return "".join(rng.choice(bits) for _ in range(rng.randrange(1, 20)))


def fill(case, all_models, texts):
    """The case with what the reference says; None if it has no answer for some text."""
    model = all_models[case["model"]]
    added = added_tokens(model["vocab"], case["choice"])
    steps = {"normalizer": case["normalizer"], "pre_tokenizer": case["pre_tokenizer"], "decoder": case["decoder"],
             "added_tokens": added, "post_processor": post_processor(added, case["post"])}
    t = tokenizers.Tokenizer.from_str(json.dumps({"version": "1.0", "truncation": None, "padding": None, "model": model, **steps}))
    out = {"model": case["model"], "steps": steps, "texts": []}
    for text in texts:
        try:
            ids = t.encode(text, add_special_tokens=False).ids
            special = t.encode(text).ids
            shown, hidden = (t.decode(special, skip_special_tokens=s) for s in (False, True))
        except BaseException:  # a panic of the reference
            return None
        line = {"s": text, "ids": ids, "dec": shown}
        if special != ids:
            line["sp"] = special
        if hidden != shown:
            line["skip"] = hidden
        out["texts"].append(line)
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=pathlib.Path(__file__).parent / "data" / "tokenizer_cases.json")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--cases", type=int, default=100)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    cases = fixed_cases() if options.seed is None else random_cases(rng, options.cases)
    done = []
    all_models = models()
    for i, case in enumerate(cases):
        texts = TEXTS[i % 2::2] + TEXTS[8:9] if options.seed is None else [random_text(rng) for _ in range(12)]
        filled = fill(case, all_models, texts)
        if filled:
            done.append(filled)
    lines = ",\n".join(json.dumps(c, separators=(",", ":")) for c in done)
    head = json.dumps({"reference": "tokenizers " + tokenizers.__version__, "models": all_models}, separators=(",", ":"))
    pathlib.Path(options.out).write_text(head[:-1] + ',\n"cases":[\n' + lines + "\n]}\n")


if __name__ == "__main__":
    main()
