"""Does a sketch of a base's weights tell a quantised copy from a fine-tuned sibling? For docs/FINGERPRINT.md.

    python3 tests/real/sketch.py MODEL ADAPTER_FOLDER…      MODEL: a Hugging Face folder or a GGUF file

Two sketches of each linear matrix are compared with those of copies of it:

  projections   16 rows (seeded), each times a vector of +-1: T = sum of squared differences over what rounding alone
                would give (step^2 / 12 a value). A copy has T = 1.
  samples       2 x 32 values as they are: the share of them that lies outside half a step of the copy's grid around the
                copy's value (largest and smallest of a block apart, where grids clip). A copy has 0.

Copies: the types that gguf can write, and a plain Q4_K (min and max of 32 values). Siblings: W + c * adapter, c so that
|delta| / |W| is what the table says ("own": the adapter's). Needs numpy and gguf."""
import sys
import os

import numpy as np
import gguf
from gguf.quants import dequantize, quantize
from gguf import GGMLQuantizationType as T

sys.path.insert(0, os.path.dirname(__file__))
from own_grid import NAMES, f32, read_adapter  # noqa: E402


def load(path):
    if path.endswith(".gguf"):
        return {t.name: dequantize(t.data, t.tensor_type).reshape(t.shape[::-1]).astype(np.float32)
                for t in gguf.GGUFReader(path).tensors if t.name.startswith("blk") and len(t.shape) == 2}
    import json
    with open(path + "/model.safetensors", "rb") as f:
        head = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        data = f.read()
    out = {}
    for name, t in head.items():
        parts = name.split(".")
        if len(parts) > 4 and parts[-2] in NAMES:
            b, e = t["data_offsets"]
            out[f"blk.{parts[2]}.{NAMES[parts[-2]]}.weight"] = f32(data[b:e], t["dtype"]).reshape(t["shape"])
    return out


def bf16(w):
    u = w.view(np.uint32)
    return ((u + 0x7fff + ((u >> 16) & 1)) & 0xffff0000).astype(np.uint32).view(np.float32)


def stored(w, kind):
    """Values as `kind` stores them, and the step of the grid around each."""
    if kind == "bf16":
        v = bf16(w)
        return v, np.exp2(np.floor(np.log2(np.maximum(np.abs(v), 1e-30))) - 7)
    blocks = w.reshape(-1, 32)
    if kind == "q4_k":  # min and max on a grid of 16, scales kept in f16 (finer than its 6 bits)
        lo, hi = np.minimum(blocks.min(1), 0), blocks.max(1)
        d = np.maximum(((hi - lo) / 15).astype(np.float16).astype(np.float32), 1e-12)
        v = np.clip(np.round((blocks - lo[:, None]) / d[:, None]), 0, 15) * d[:, None] + lo[:, None]
    else:
        v = dequantize(quantize(w, T[kind.upper()]), T[kind.upper()]).reshape(-1, 32)
        levels = {"q8_0": 127, "q4_0": 8, "q5_0": 16}.get(kind)
        if levels:
            d = np.abs(v).max(1) / levels
        else:
            d = (v.max(1) - v.min(1)) / {"q4_1": 15, "q5_1": 31}[kind]
    return v.reshape(w.shape).astype(np.float32), np.repeat(d, 32).reshape(w.shape)


def compare(w, v, step, seed):
    rng = np.random.default_rng(seed)
    rows = rng.choice(w.shape[0], min(16, w.shape[0]), replace=False)
    signs = rng.choice([-1.0, 1.0], (len(rows), w.shape[1]))
    d = (signs * (w[rows].astype(np.float64) - v[rows])).sum(1)
    noise = (step[rows].astype(np.float64) ** 2).sum(1) / 12
    outside = n = 0
    for _ in range(2):
        r, c = rng.integers(w.shape[0]), 32 * rng.integers(w.shape[1] // 32)
        a, b, s = w[r, c:c + 32], v[r, c:c + 32], step[r, c:c + 32]
        inner = (b != b.max()) & (b != b.min())
        outside += int((np.abs(a - b) > s * 0.5 + np.abs(b) * 2.0 ** -10)[inner].sum())
        n += int(inner.sum())
    return (d ** 2).sum(), noise.sum(), outside, n


def deltas(base, folder):
    scale, tensors = read_adapter(folder)
    out = {}
    for name in tensors:
        if name.endswith("lora_A.weight"):
            parts = name.split(".")
            layer = parts[parts.index("layers") + 1]
            a, b = tensors[name], tensors[name.replace("lora_A", "lora_B")]
            out[f"blk.{layer}.{NAMES[parts[-3]]}.weight"] = scale * (b @ a)
    return out


def main():
    base = load(sys.argv[1])
    if len(base) > 60:  # every third layer is enough
        base = {k: v for k, v in base.items() if int(k.split(".")[1]) % 3 == 0}
    print("| copy as | copy of | delta / W | projections: T | samples: outside |\n|---|---|---|---|---|")
    cases = [("itself", None, 0.0)]
    for folder in sys.argv[2:]:
        d = deltas(base, folder)
        own = np.sqrt(sum((x ** 2).sum() for x in d.values()) / sum((w ** 2).sum() for w in base.values()))
        cases += [(os.path.basename(folder.rstrip("/")), d, own)]
        if folder == sys.argv[2]:
            cases += [(os.path.basename(folder.rstrip("/")), d, x) for x in (0.002, 0.005, 0.01, 0.03)]
    for kind in ("bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "q4_k"):
        for name, d, size in cases:
            own = np.sqrt(sum((x ** 2).sum() for x in d.values()) / sum((w ** 2).sum() for w in base.values())) if d else 1
            t = np.zeros(4)
            for i, (key, w) in enumerate(sorted(base.items())):
                s = w + d[key] * np.float32(size / own) if d and key in d else w
                t += compare(w, *stored(s, kind), seed=i)
            print(f"| {kind} | {name} | {100 * size:.2f} % | {t[0] / t[1]:.2f} | {100 * t[2] / t[3]:.2f} % of {int(t[3])} |")


if __name__ == "__main__":
    main()
