#!/usr/bin/env python3
"""Draws of the sampler against the NumPy model by Pearson's chi-square test, for many logits, parameters and orders.

Every seed is fixed, so a run is the same each time. A cell's p-value below 1e-4 is a failure, and so is any token drawn
that the model gives no probability. That the test can tell is tested too: draws of one order against another's model.
"""
import json, math, os, subprocess, sys

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import model

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DRAW = os.environ.get("DRAW", os.path.join(ROOT, "build/release/tests/sampling/draw"))
N_DRAWS, SIGNIFICANCE = 10000, 1e-4


def upper_gamma(a, x):
    """Regularised upper incomplete gamma function Q(a, x): series below a + 1, else Lentz' continued fraction."""
    if x <= 0:
        return 1.0
    front = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        for n in range(1, 10000):
            term *= x / (a + n)
            total += term
            if term < total * 1e-15:
                break
        return 1 - front * total
    b = x + 1 - a
    c, d = 1e300, 1 / b
    h = d
    for n in range(1, 10000):
        b += 2
        d = 1 / (n * (a - n) * d + b)
        c = b + n * (a - n) / c
        h *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return front * h


def p_value(counts, probabilities):
    """0 when something impossible was drawn, or draws are missing; cells that expect less than 5 share one."""
    counts, expected = np.asarray(counts, float), probabilities * np.sum(counts)
    if counts[probabilities < 1e-15].sum() > 0 or counts.sum() == 0:
        return 0.0
    big = expected >= 5
    cells = list(zip(counts[big], expected[big]))
    if expected[~big].sum() >= 1:
        cells.append((counts[~big].sum(), expected[~big].sum()))
    if len(cells) < 2:
        return 1.0
    return upper_gamma((len(cells) - 1) / 2, sum((c - e) ** 2 / e for c, e in cells) / 2)


def rows(rng):
    normal = lambda n, spread: rng.normal(0, spread, n).astype(np.float32).tolist()
    ties = np.round(rng.normal(0, 1.5, 40) * 2).astype(np.float32) / 2
    holes = [None if i % 3 == 1 else float(x) for i, x in enumerate(normal(30, 1))]
    return {"normal": normal(40, 1.5), "steep": normal(40, 4), "flat": normal(60, 0.1), "negative": [x - 50 for x in normal(40, 1)],
            "zipf": (-np.log(np.arange(150) + 1.5)).astype(np.float32).tolist(), "ties": ties.tolist(), "equal": [1.5] * 20,
            "holes": holes, "two peaks": [7.0, 6.5] + [0.0] * 200, "one": [3.0], "big": normal(5000, 1) + [9 - i / 20 for i in range(60)]}


def cases(rng):
    """(what, case): single parameters, combinations, and random orders with everything switched on."""
    singles = [{}, {"temperature": 0.5}, {"temperature": 2.5}, {"temperature": 0.01}, {"temperature": 0}, {"top_k": 1}, {"top_k": 7},
               {"top_k": 100000}, {"top_p": 0.3}, {"top_p": 0.91}, {"top_p": 0}, {"min_p": 0.12}, {"min_p": 1}, {"typical_p": 0.35},
               {"typical_p": 0.93}, {"typical_p": 0}, {"typical_p": 0.2, "min_keep": 4}, {"min_p": 0.9, "min_keep": 3},
               {"temperature": 0.7, "top_k": 20, "top_p": 0.87, "min_p": 0.06},
               {"top_n_sigma": 1.1}, {"top_n_sigma": 2, "temperature": 3, "top_p": 0.9}, {"xtc_probability": 0.6}, {"xtc_probability": 1, "xtc_threshold": 0.02},
               {"xtc_probability": 0.5, "xtc_threshold": 0.05, "min_keep": 3, "top_k": 4}, {"xtc_probability": 1, "xtc_threshold": 0.6},
               {"dynatemp_range": 0.8}, {"temperature": 0.4, "dynatemp_range": 0.9, "dynatemp_exponent": 2, "top_p": 0.9}, {"mirostat": 2, "mirostat_tau": 1},
               {"mirostat": 2, "mirostat_tau": 0.1, "top_k": 3}, {"mirostat": 1, "mirostat_tau": 1.5}, {"mirostat": 1, "mirostat_tau": 0.5, "temperature": 1.3},
               {"temperature": 1.4, "typical_p": 0.8, "top_p": 0.77}, {"temperature": 1.4, "typical_p": 0.8, "top_p": 0.77, "samplers": "ekypmt"}]
    for name, logits in rows(rng).items():
        for r in singles:
            yield f"{name} {r}", {"logits": logits, "request": r}
    normal, ties = rows(rng)["normal"], rows(rng)["ties"]
    text = {"prompt": rng.integers(0, 40, 12).tolist(), "output": rng.integers(0, 20, 15).tolist()}
    for r in ({"repetition_penalty": 1.4}, {"repetition_penalty": 0.8}, {"frequency_penalty": 0.7}, {"presence_penalty": 1.1},
              {"presence_penalty": -1.1}, {"repetition_penalty": 1.2, "frequency_penalty": 0.3, "presence_penalty": 0.4},
              {"repetition_penalty": 1.5, "repeat_last_n": 5}, {"frequency_penalty": 1, "repeat_last_n": 20}, {"repetition_penalty": 2, "repeat_last_n": 0},
              {"repetition_penalty": 1.4, "top_p": 0.8}, {"repetition_penalty": 1.5, "samplers": ["top_p"], "top_p": 0.8}):
        for name, logits in ("normal", normal), ("ties", ties):
            yield f"{name} {r}", {"logits": logits, "request": r, **text}
    turns = [5, 6, 7, 8, 9, 5, 6, 7, 10, 6, 7, 11, 5, 6, 7]
    for r in ({"dry_multiplier": 0.8}, {"dry_multiplier": 0.8, "dry_allowed_length": 3}, {"dry_multiplier": 0.5, "dry_base": 3, "temperature": 1.5},
              {"dry_multiplier": 1, "dry_penalty_last_n": 7}, {"dry_multiplier": 2, "dry_penalty_last_n": 0}, {"dry_multiplier": 1, "dry_allowed_length": 1}):
        for name, logits in ("normal", normal), ("steep", rows(rng)["steep"]):
            for output in (turns[6:], [3, 3, 3, 3, 3, 3], []):
                yield f"{name} {r} {output}", {"logits": logits, "request": r, "prompt": turns[:6], "output": output}
    for r in ({"allowed_token_ids": [9, 2, 2, 31]}, {"allowed_token_ids": [0], "top_k": 2}, {"mirostat": 2, "repetition_penalty": 1.3, "mirostat_tau": 2}):
        yield f"{r}", {"logits": normal, "request": r, **text}
    bias = {"logit_bias": {"3": 2.5, "7": -100, "8": 1.25}}
    yield "bias", {"logits": normal, "request": bias}
    yield "bias and bans", {"logits": normal, "request": {**bias, "top_p": 0.9}, "banned": [3, 5]}
    everything = {"repetition_penalty": 1.3, "frequency_penalty": 0.2, "temperature": 1.7, "top_k": 25, "typical_p": 0.9, "top_p": 0.85, "min_p": 0.08,
                  "top_n_sigma": 1.6, "xtc_probability": 0.4, "xtc_threshold": 0.12, "dry_multiplier": 0.6, "dry_allowed_length": 1}
    for i in range(60):
        order = [model.DEFAULT[j] for j in rng.permutation(9)][:9 if i < 40 else i % 9]
        r = {**everything, "samplers": order if i % 2 else "".join(k for n in order for k, v in model.LETTERS.items() if v == n)}
        if i % 9 == 8:
            r["temperature"] = 0
        yield f"order {r['samplers']}", {"logits": [normal, ties, rows(rng)["steep"]][i % 3], "request": r, **text}


def draw(batch):
    done = subprocess.run([DRAW], input=json.dumps(batch), capture_output=True, text=True, timeout=600)
    if done.returncode:
        sys.exit(f"{DRAW}: {done.stderr}")
    return json.loads(done.stdout)


def other_order(case):
    """The same parameters with the chain turned round."""
    r = case["request"]
    return {**case, "request": {**r, "samplers": model.DEFAULT[::-1]}}


def main():
    named, borders, values = [], 0, []
    for i, (what, case) in enumerate(cases(np.random.default_rng(20240229))):
        try:
            expected = model.probabilities(case)
        except model.Border:
            borders += 1
            continue
        case["request"]["seed"] = 1000 + i
        case["draws"] = N_DRAWS if len(case["logits"]) < 1000 else 1000
        named.append((what, case, expected))
    counts = draw([case for _, case, _ in named])
    passed = failed = told = 0
    for (what, case, expected), seen in zip(named, counts):
        p = p_value(seen, expected)
        good = p >= SIGNIFICANCE and sum(seen) == case["draws"]
        values += [p] if p < 1 else []
        passed, failed = passed + good, failed + (not good)
        if not good:
            print(f"FAIL {what}: p {p:.3g}, {sum(seen)} of {case['draws']} drawn")
        try:
            wrong = model.probabilities(other_order(case))
        except model.Border:
            continue
        if np.abs(wrong - expected).sum() > 0.1 and case["draws"] == N_DRAWS:
            told += 1
            if p_value(seen, wrong) >= SIGNIFICANCE:
                failed += 1
                print(f"FAIL {what}: the test can't tell it from the chain turned round")
            else:
                passed += 1
    # p-values of right draws are uniform: their mean's deviation is 0.29 / sqrt(n)
    even = abs(np.mean(values) - 0.5) < 4 * 0.29 / math.sqrt(len(values)) and len(values) > 100
    if not even or borders > len(named) / 5 or told < 30:
        print(f"FAIL p-values have the mean {np.mean(values):.3f} of {len(values)}; {borders} at a border; {told} told apart")
    passed, failed = passed + even, failed + (not even or borders > len(named) / 5 or told < 30)
    print(f"{len(named)} distributions, {told} told from another order, {borders} left out at a border, smallest p {min(values):.2g}")
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
