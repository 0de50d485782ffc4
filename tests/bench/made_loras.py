#!/usr/bin/env python3
"""Adapters with made-up weights for any GGUF base, as GGUF files (f16), for measuring speed and never for sense.

    made_loras.py --base model.gguf --out-dir FOLDER [-n 32] [--rank 16] [--modules attn_q,attn_v]

Standard library only."""
import argparse, os, random, struct

SEVEN = "attn_q,attn_k,attn_v,attn_output,ffn_gate,ffn_up,ffn_down"
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY, U32, F32, F16 = 8, 9, 4, 6, 1
# An f16's upper byte is the sign, five bits of exponent and two of mantissa: these two with any lower byte are ±0.0078 to ±0.0098.
SIGNS = bytes(0x20 | (i & 1) << 7 for i in range(256))


class Base:
    """`architecture`, and `shapes`: tensor name → dimensions, the innermost first."""

    def __init__(self, path):
        with open(path, "rb") as f:
            self.f = f
            magic, _, n_tensors, n_keys = struct.unpack("<IIQQ", f.read(24))
            if magic != 0x46554747:
                raise SystemExit(f"{path} is no GGUF file")
            self.architecture, self.shapes = "", {}
            for _ in range(n_keys):
                key, value = self.string(), self.value(self.number("<I"))
                if key == "general.architecture":
                    self.architecture = value
            for _ in range(n_tensors):
                name, n_dims = self.string(), self.number("<I")
                self.shapes[name] = struct.unpack(f"<{n_dims}Q", f.read(8 * n_dims))
                f.seek(12, 1)

    def number(self, form):
        return struct.unpack(form, self.f.read(struct.calcsize(form)))[0]

    def string(self):
        return self.f.read(self.number("<Q")).decode(errors="replace")

    def value(self, kind):
        """A string, or None for what isn't wanted here."""
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            inner, n = struct.unpack("<IQ", self.f.read(12))
            if inner != STRING:
                self.f.seek(SIZES[inner] * n, 1)
            else:
                for _ in range(n):
                    self.f.seek(self.number("<Q"), 1)
            return None
        self.f.seek(SIZES[kind], 1)
        return None

    def vocabulary(self):
        return self.shapes["token_embd.weight"][1]


def text(s):
    return struct.pack("<Q", len(s)) + s.encode()


def write(path, base, rank, modules, seed):
    tensors = []
    for name, shape in base.shapes.items():
        if len(shape) == 2 and name.startswith("blk.") and name.split(".")[2] in modules and name.endswith(".weight"):
            tensors += [(name + ".lora_a", (shape[0], rank)), (name + ".lora_b", (rank, shape[1]))]
    keys = [("general.architecture", STRING, text(base.architecture)), ("general.type", STRING, text("adapter")),
            ("adapter.type", STRING, text("lora")), ("general.name", STRING, text(os.path.basename(path))),
            ("adapter.lora.alpha", F32, struct.pack("<f", float(rank))), ("general.alignment", U32, struct.pack("<I", 32))]
    head, at = struct.pack("<IIQQ", 0x46554747, 3, len(tensors), len(keys)), 0
    for key, kind, value in keys:
        head += text(key) + struct.pack("<I", kind) + value
    for name, shape in tensors:
        head += text(name) + struct.pack("<IQQIQ", 2, *shape, F16, at)
        at += (2 * shape[0] * shape[1] + 31) // 32 * 32
    rng = random.Random(seed)
    with open(path + ".new", "wb") as f:
        f.write(head + b"\0" * (-len(head) % 32))
        for _, shape in tensors:
            n = shape[0] * shape[1]
            data = bytearray((2 * n + 31) // 32 * 32)
            data[0:2 * n:2] = rng.randbytes(n)
            data[1:2 * n:2] = rng.randbytes(n).translate(SIGNS)
            f.write(data)
    os.replace(path + ".new", path)


def make(base_path, folder, n, rank=16, modules=SEVEN):
    """n adapters' paths; those that are there stay."""
    os.makedirs(folder, exist_ok=True)
    paths = [os.path.join(folder, f"lora-{k:04d}.gguf") for k in range(n)]
    base = None
    for k, path in enumerate(paths):
        if not os.path.exists(path):
            base = base or Base(base_path)
            write(path, base, rank, modules.split(","), 1000 + k)
    return paths


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--base", required=True)
    p.add_argument("--out-dir", required=True)
    p.add_argument("-n", type=int, default=32)
    p.add_argument("--rank", type=int, default=16)
    p.add_argument("--modules", default=SEVEN)
    args = p.parse_args()
    make(args.base, args.out_dir, args.n, args.rank, args.modules)


if __name__ == "__main__":
    main()
