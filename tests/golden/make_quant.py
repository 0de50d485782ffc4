#!/usr/bin/env python3
"""Makes tests/golden/data/quant: quantised weights and what the reference readers make of them.

    pip install -r tests/golden/requirements.txt && python3 tests/golden/make_quant.py

dequant.json   a GGUF type: blocks of seeded random bytes, and the hash of the values that gguf-py reads from them
               (FNV-1a over the floats' bits, every NaN as 0x7fc00000); f8_e4m3 by torch
"""
import json, os
import gguf
import numpy as np
import torch

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "quant")
TYPES = "Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4".split()
MASK = (1 << 64) - 1


def random_bytes(seed, n):
    """The top bytes of n splitmix64 numbers."""
    z = np.uint64(seed) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(56)).astype(np.uint8)


def fnv(values):
    bits = np.where(np.isnan(values), np.uint32(0x7FC00000), values.view(np.uint32)).ravel()
    h = 0xCBF29CE484222325
    for b in bits.tolist():
        h = (h ^ b) * 0x100000001B3 & MASK
    return f"{h:016x}"


def dequant_hashes():
    out = {}
    for seed, name in enumerate(TYPES):
        kind = gguf.GGMLQuantizationType[name]
        size, n_bytes = gguf.GGML_QUANT_SIZES[kind]
        n = 65536 // size
        blocks = random_bytes(1000 + seed, n * n_bytes).reshape(n, n_bytes)
        with np.errstate(all="ignore"):
            values = gguf.quants.dequantize(blocks, kind).astype(np.float32)
        out[name.lower()] = {"seed": 1000 + seed, "blocks": n, "fnv": fnv(values)}
    codes = random_bytes(999, 4096)
    values = torch.from_numpy(codes).view(torch.float8_e4m3fn).float().numpy()
    out["f8_e4m3"] = {"seed": 999, "blocks": 4096, "fnv": fnv(values)}
    return out


if __name__ == "__main__":
    os.makedirs(HERE, exist_ok=True)
    with np.errstate(over="ignore"):
        json.dump(dequant_hashes(), open(os.path.join(HERE, "dequant.json"), "w"), indent=1)
