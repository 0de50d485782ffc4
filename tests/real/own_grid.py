"""What is left of an adapter when W + delta is rounded back onto a base's grid: for docs/EVAL.md.

    python3 tests/real/own_grid.py build/real/gemma-3-270m-q4_k_m.gguf ADAPTER_FOLDER…

The base's weights are dequantised, put on a Q8_0 or Q4_0 grid as `--quant` does, the adapter's delta is added, and the
sum is rounded again: with the base's own scales ("own") or with scales of its own ("fresh"). Printed for all linear
modules together: |delta| / |W|; error = |rounded - (W + delta)| / |delta|; lost = 1 - <rounded - W, delta> / |delta|^2,
the share of the delta that did not arrive. Needs numpy and gguf."""
import json
import re
import sys

import gguf
import numpy as np
from gguf.quants import dequantize

NAMES = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output", "gate_proj": "ffn_gate",
         "up_proj": "ffn_up", "down_proj": "ffn_down"}


def scales(w, bits):
    """Per block of 32, as ggml's reference has them: Q8_0 amax / 127, Q4_0 the signed largest / -8; stored as f16."""
    blocks = w.reshape(-1, 32)
    at = np.abs(blocks).argmax(1)
    largest = blocks[np.arange(len(blocks)), at]
    d = np.abs(largest) / 127 if bits == 8 else largest / -8
    return d, d.astype(np.float16).astype(np.float32)


def put(w, bits, d, stored):
    with np.errstate(divide="ignore", invalid="ignore"):
        q = np.where(d[:, None] != 0, w.reshape(-1, 32) / d[:, None], 0)
    q = np.clip(np.trunc(q + np.copysign(0.5, q)), -127, 127) if bits == 8 else np.clip(np.floor(q + 8.5), 0, 15) - 8
    return (q * stored[:, None]).astype(np.float32).reshape(w.shape)


def f32(tensor, kind):
    raw = np.frombuffer(tensor, np.uint16) if kind != "F32" else np.frombuffer(tensor, np.float32)
    if kind == "BF16":
        return (raw.astype(np.uint32) << 16).view(np.float32)
    return raw.astype(np.float32) if kind == "F32" else raw.view(np.float16).astype(np.float32)


def read_adapter(folder):
    config = json.load(open(folder + "/adapter_config.json"))
    with open(folder + "/adapter_model.safetensors", "rb") as f:
        head = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        data = f.read()
    tensors = {}
    for name, t in head.items():
        if name != "__metadata__":
            begin, end = t["data_offsets"]
            tensors[name] = f32(data[begin:end], t["dtype"]).reshape(t["shape"])
    return config["lora_alpha"] / config["r"], tensors


def main():
    base = {t.name: t for t in gguf.GGUFReader(sys.argv[1]).tensors}
    print("| grid | adapter | delta / W | own scales: error, lost | fresh scales: error, lost |\n|---|---|---|---|---|")
    for folder in sys.argv[2:]:
        scale, tensors = read_adapter(folder)
        sums = {bits: np.zeros(6) for bits in (8, 4)}
        for name, a in tensors.items():
            if not name.endswith(".lora_A.weight"):
                continue
            layer, module = re.search(r"layers\.(\d+)\..*\.(\w+)\.lora_A", name).groups()
            t = base[f"blk.{layer}.{NAMES[module]}.weight"]
            exact = dequantize(t.data, t.tensor_type).astype(np.float32)
            delta = scale * tensors[name.replace("lora_A", "lora_B")] @ a
            for bits in (8, 4):
                d, stored = scales(exact, bits)
                w = put(exact, bits, d, stored)
                wanted = w + delta
                own = put(wanted, bits, stored, stored)
                fresh = put(wanted, bits, *scales(wanted, bits))
                sums[bits] += [np.sum(w.astype(float) ** 2), np.sum(delta.astype(float) ** 2),
                               np.sum((own - wanted).astype(float) ** 2), np.sum((own - w).astype(float) * delta),
                               np.sum((fresh - wanted).astype(float) ** 2), np.sum((fresh - w).astype(float) * delta)]
        for bits, (w2, d2, own2, own_dot, fresh2, fresh_dot) in sums.items():
            print(f"| Q{bits}_0 | {folder.rstrip('/').rsplit('/', 1)[-1]} | {100 * (d2 / w2) ** 0.5:.2g} % "
                  f"| {100 * (own2 / d2) ** 0.5:.3g} %, {100 * (1 - own_dot / d2):.3g} % "
                  f"| {100 * (fresh2 / d2) ** 0.5:.3g} %, {100 * (1 - fresh_dot / d2):.3g} % |", flush=True)


if __name__ == "__main__":
    main()
