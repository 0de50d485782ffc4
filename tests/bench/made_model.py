"""Models and adapters of real shapes with made-up weights, for measuring speed and never for sense. Standard library only."""
import json, math, os, random, shutil, struct

from harness import DATA

TOKENIZER = os.path.join(DATA, "models", "llama", "f32")
SHAPES = {  # layers, width, ffn, heads, kv heads, head width, vocabulary
    "1b": (16, 2048, 8192, 32, 8, 64, 128256),
    "tiny": (4, 256, 512, 8, 4, 32, 1024),
}
# A bf16's upper byte is the sign and seven bits of exponent: these two with any lower byte are ±0.0078 to ±0.031.
SIGNS = bytes(0x3C | (i & 1) << 7 for i in range(256))


def linears(shape):
    _, d, ff, heads, kv, width, _ = SHAPES[shape]
    return {"self_attn.q_proj": (heads * width, d), "self_attn.k_proj": (kv * width, d), "self_attn.v_proj": (kv * width, d),
            "self_attn.o_proj": (d, heads * width), "mlp.gate_proj": (ff, d), "mlp.up_proj": (ff, d), "mlp.down_proj": (d, ff)}


def values(rng, n):
    block = bytearray(2 * n)
    block[0::2] = rng.randbytes(n)
    block[1::2] = rng.randbytes(n).translate(SIGNS)
    return bytes(block)


def write_safetensors(path, tensors, fill):
    """tensors: name → shape, all bf16; fill(name, n values) gives their bytes, or a part of them to be repeated."""
    header, at = {}, 0
    for name, shape in tensors.items():
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path + ".new", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, shape in tensors.items():
            n = math.prod(shape)
            data = fill(name, n)
            for begin in range(0, 2 * n, len(data)):
                f.write(data[:2 * n - begin])
    os.replace(path + ".new", path)


def make_model(folder, shape):
    """A llama of that shape in bf16, with the tests' tokenizer; what is there already stays."""
    weights = os.path.join(folder, "model.safetensors")
    if os.path.exists(weights):
        return folder
    os.makedirs(folder, exist_ok=True)
    layers, d, ff, heads, kv, width, vocabulary = SHAPES[shape]
    for name in os.listdir(TOKENIZER):
        if name.startswith("tokenizer") or name in ("special_tokens_map.json", "generation_config.json"):
            shutil.copy(os.path.join(TOKENIZER, name), folder)
    with open(os.path.join(TOKENIZER, "config.json")) as f:
        config = json.load(f)
    config.update(num_hidden_layers=layers, hidden_size=d, intermediate_size=ff, num_attention_heads=heads, num_key_value_heads=kv,
                  head_dim=width, vocab_size=vocabulary, tie_word_embeddings=True, max_position_embeddings=4096)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f)
    tensors = {"model.embed_tokens.weight": [vocabulary, d], "model.norm.weight": [d]}
    for i in range(layers):
        for name, (out, n_in) in linears(shape).items():
            tensors[f"model.layers.{i}.{name}.weight"] = [out, n_in]
        tensors[f"model.layers.{i}.input_layernorm.weight"] = [d]
        tensors[f"model.layers.{i}.post_attention_layernorm.weight"] = [d]
    rng = random.Random(1)
    block = values(rng, 1 << 21)
    ones = struct.pack("<H", 0x3F80) * 4096

    def fill(name, n):
        if "norm" in name:
            return ones
        at = 2 * rng.randrange(1 << 20)
        return block[at:at + (1 << 21) + 2 * 12347]  # odd in rows: repeating it makes no two rows alike
    write_safetensors(weights, tensors, fill)
    return folder


def make_adapter(folder, shape, rank=16, seed=1, only=None):
    """A PEFT folder, bf16, for all linear modules (or those whose name has `only` in it)."""
    path = os.path.join(folder, "adapter_model.safetensors")
    if os.path.exists(path):
        return folder
    os.makedirs(folder, exist_ok=True)
    tensors = {}
    for i in range(SHAPES[shape][0]):
        for name, (out, n_in) in linears(shape).items():
            if only and only not in name:
                continue
            key = f"base_model.model.model.layers.{i}.{name}"
            tensors[key + ".lora_A.weight"] = [rank, n_in]
            tensors[key + ".lora_B.weight"] = [out, rank]
    rng = random.Random(seed)
    write_safetensors(path, tensors, lambda name, n: values(rng, n))
    targets = sorted({t.split(".")[-3] for t in tensors})
    with open(os.path.join(folder, "adapter_config.json"), "w") as f:
        json.dump({"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank, "target_modules": targets,
                   "bias": "none"}, f)
    return folder
