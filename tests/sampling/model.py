"""The sampling chain in NumPy, written from the papers and from docs/API.md: the probabilities that the draws must have.

A state is a vector of logits in which who was cut is -inf. Every sampler looks at the softmax of what is left.
"""
import numpy as np

DEFAULT = ["penalties", "temperature", "top_k", "typ_p", "top_p", "min_p"]
LETTERS = {"e": "penalties", "t": "temperature", "k": "top_k", "y": "typ_p", "p": "top_p", "m": "min_p"}


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
    t = r.get("temperature", 1)
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


SAMPLERS = {f.__name__: f for f in (penalties, temperature, top_k, typ_p, top_p, min_p)}


def probabilities(case):
    r = case["request"]
    x = np.array([-np.inf if v is None else np.float32(v) for v in case["logits"]], dtype=np.float64)
    for token, bias in r.get("logit_bias", {}).items():
        x[int(token)] += bias
    x[case.get("banned", [])] = -np.inf
    order = r.get("samplers", DEFAULT)
    for name in [LETTERS[c] for c in order] if isinstance(order, str) else order:
        x = SAMPLERS[name](x, r, case)
    return softmax(x)
