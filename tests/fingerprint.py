"""Adapters whose every token shows who speaks: a rank-1 update of the tiny llama's head that makes one token win, made
from shows_A (the base has a residual channel that no layer writes to, which its A reads)."""
import json, os, shutil, struct

from harness import DATA

SHOWS_A = os.path.join(DATA, "adapters", "llama", "shows_A")
FIRST_TOKEN = 32  # ordinary tokens of the tiny vocabulary begin here


def read_safetensors(path):
    with open(path, "rb") as f:
        data = f.read()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + n])
    header.pop("__metadata__", None)
    return {name: (t["dtype"], t["shape"], data[8 + n + t["data_offsets"][0]:8 + n + t["data_offsets"][1]])
            for name, t in header.items()}


def write_safetensors(path, tensors):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values()))


def make_fingerprint(folder, token, pad=0):
    """A PEFT folder with which every token is `token`; `pad` more bytes in its configuration make other content."""
    os.makedirs(folder, exist_ok=True)
    tensors = read_safetensors(os.path.join(SHOWS_A, "adapter_model.safetensors"))
    name = "base_model.model.lm_head.lora_B.weight"
    dtype, shape, data = tensors[name]
    values = list(struct.unpack(f"<{shape[0]}f", data))
    top = max(values)
    rest = [0.0] * shape[0]
    rest[token] = top
    tensors[name] = (dtype, shape, struct.pack(f"<{shape[0]}f", *rest))
    temporary = os.path.join(folder, ".new")
    write_safetensors(temporary, tensors)
    os.replace(temporary, os.path.join(folder, "adapter_model.safetensors"))
    with open(os.path.join(SHOWS_A, "adapter_config.json")) as f:
        config = json.load(f)
    config["revision"] = "x" * pad  # changes no number
    with open(temporary, "w") as f:
        json.dump(config, f)
    os.replace(temporary, os.path.join(folder, "adapter_config.json"))
    return folder
