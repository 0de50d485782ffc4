"""The sampling chain in NumPy, written from the papers and from docs/API.md: the probabilities that the draws must have.

A state is a vector of logits in which who was cut is -inf. Every sampler looks at the softmax of what is left.
"""
import numpy as np

DEFAULT = ["penalties", "dry", "temperature", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc"]
LETTERS = {"e": "penalties", "t": "temperature", "k": "top_k", "y": "typ_p", "p": "top_p", "m": "min_p", "d": "dry", "s": "top_n_sigma",
           "x": "xtc"}


class Border(Exception):
    """A sum lies so near to its threshold that rounding decides: such a case tests nothing."""


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def ranked(x):
    """Ids that are left, by falling logit, equals by rising id."""
    order = np.lexsort((np.arange(len(x)), -x))
    return order[np.isfinite(x[order])]


def keep(x, ids):
    out = np.full_like(x, -np.inf)
    out[ids] = x[ids]
    return out


def fewest(probabilities, p, least):
    """How many of these, in their order, it takes to sum to p or more."""
    sums = np.cumsum(probabilities)
    if np.abs(sums - p).min() < 1e-7:
        raise Border
    return max(int(np.searchsorted(sums, p)) + 1, least)


def penalties(x, r, case):
    prompt, output = case.get("prompt", []), case.get("output", [])
    last_n, everything = r.get("repeat_last_n", -1), prompt + output
    begin = 0 if last_n < 0 else max(0, len(everything) - last_n)
    x = x.copy()
    for t in set(everything[begin:]):
        factor = r.get("repetition_penalty", 1)
        x[t] = x[t] / factor if x[t] > 0 else x[t] * factor
    seen = everything[max(begin, len(prompt)):]
    for t in set(seen):
        x[t] -= seen.count(t) * r.get("frequency_penalty", 0) + r.get("presence_penalty", 0)
    return x


def temperature(x, r, case):
    t, spread = r.get("temperature", 1), r.get("dynatemp_range", 0)
    if spread > 0 and len(ranked(x)) > 1:
        q = softmax(x)[ranked(x)]
        share = -np.sum(q * np.log(q, where=q > 0, out=np.zeros_like(q))) / np.log(len(q))
        t = max(t - spread, 0) + (t + spread - max(t - spread, 0)) * min(share, 1) ** r.get("dynatemp_exponent", 1)
    return x / t if t > 0 else keep(x, ranked(x)[:1])


def top_k(x, r, case):
    k = r.get("top_k", 0)
    return keep(x, ranked(x)[:k]) if k > 0 else x


def top_p(x, r, case):
    p, ids = r.get("top_p", 1), ranked(x)
    return keep(x, ids[:fewest(softmax(x)[ids], p, r.get("min_keep", 0))]) if p < 1 else x


def min_p(x, r, case):
    p, ids = r.get("min_p", 0), ranked(x)
    if p <= 0:
        return x
    ratio = softmax(x)[ids] / softmax(x).max()
    if np.abs(ratio - p).min() < 1e-7 * p:
        raise Border
    return keep(x, ids[:max((ratio >= p).sum(), r.get("min_keep", 0))])


def typ_p(x, r, case):
    p, ids = r.get("typical_p", 1), ranked(x)
    if p >= 1:
        return x
    q = softmax(x)[ids]
    surprise = -np.log(q, where=q > 0, out=np.full_like(q, -np.inf))
    entropy = np.sum(q * surprise, where=q > 0)
    by_distance = np.argsort(np.abs(surprise - entropy), kind="stable")
    return keep(x, ids[by_distance[:fewest(q[by_distance], p, r.get("min_keep", 0))]])


def top_n_sigma(x, r, case):
    n, left = r.get("top_n_sigma", 0), x[np.isfinite(x)]
    if n <= 0:
        return x
    least = left.max() - n * left.std()
    if np.abs(left - least).min() < 1e-6:
        raise Border
    return keep(x, np.flatnonzero(x >= least))


def xtc(x, r, case):
    """Where the first draw said so: without it, what is left is left."""
    if not case.get("excludes"):
        return x
    ids, q = ranked(x), softmax(x)
    if np.abs(q - r.get("xtc_threshold", 0.1)).min() < 1e-7:
        raise Border
    n = int((q >= r.get("xtc_threshold", 0.1)).sum())
    return keep(x, ids[n - 1:]) if n > 1 and len(ids) - n + 1 >= r.get("min_keep", 0) else x


def dry(x, r, case):
    """Every length of every earlier occurrence, by brute force."""
    tokens, x, least = case.get("prompt", []) + case.get("output", []), x.copy(), r.get("dry_allowed_length", 2)
    last_n = r.get("dry_penalty_last_n", -1)
    tokens = tokens if last_n < 0 else tokens[len(tokens) - min(last_n, len(tokens)):]
    for token in set(tokens) if r.get("dry_multiplier", 0) > 0 else ():
        lengths = [n for i, t in enumerate(tokens) if t == token for n in range(1, i + 1) if tokens[i - n:i] == tokens[len(tokens) - n:]]
        if max(lengths, default=0) >= least:
            x[token] -= r["dry_multiplier"] * r.get("dry_base", 1.75) ** (min(max(lengths), least + 50) - least)
    return x


def mirostat(x, r, case):
    """The first token's candidates, in place of the chain."""
    x = temperature(penalties(x, r, case), r, case)
    ids, mu = ranked(x), 2 * r.get("mirostat_tau", 5)
    q = softmax(x)[ids]
    if r["mirostat"] == 2:
        surprise = -np.log2(q)
        if np.abs(surprise - mu).min() < 1e-7:
            raise Border
        return keep(x, ids[:max(int((surprise <= mu).sum()), 1)])
    i = np.arange(min(99, len(ids) - 1))
    t, b = np.log((i + 2) / (i + 1)), np.log(q[i] / q[i + 1])
    s = (t * b).sum() / (t * t).sum() if len(i) else 0
    if s <= 0 or s == 1:  # equals, or a single one: no law to estimate
        return x
    k = ((s - 1) * 2 ** mu / (1 - len(x) ** -(s - 1))) ** (1 / s)
    if abs(k - round(k)) < 1e-6:
        raise Border
    return keep(x, ids[:max(int(k), 1)])


SAMPLERS = {f.__name__: f for f in (penalties, temperature, top_k, typ_p, top_p, min_p, top_n_sigma, xtc, dry)}


def biased(case):
    """The logits behind everything that comes before the chain."""
    r = case["request"]
    x = np.array([-np.inf if v is None else np.float32(v) for v in case["logits"]], dtype=np.float64)
    for token, bias in r.get("logit_bias", {}).items():
        x[int(token)] += bias
    x[case.get("banned", [])] = -np.inf
    return keep(x, r["allowed_token_ids"]) if "allowed_token_ids" in r else x


def chain(case):
    r = case["request"]
    x = biased(case)
    if r.get("mirostat"):
        return softmax(mirostat(x, r, case))
    order = r.get("samplers", DEFAULT)
    for name in [LETTERS[c] for c in order] if isinstance(order, str) else order:
        x = SAMPLERS[name](x, r, case)
    return softmax(x)


def probabilities(case):
    p = case["request"].get("xtc_probability", 0) if case["request"].get("xtc_threshold", 0.1) <= 0.5 else 0
    return (1 - p) * chain(case) + (p * chain({**case, "excludes": True}) if p > 0 else 0)
