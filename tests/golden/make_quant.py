#!/usr/bin/env python3
"""Makes tests/golden/data/quant: quantised weights and what the reference readers make of them.

    pip install -r tests/golden/requirements.txt && python3 tests/golden/make_quant.py     (after make_goldens.py)

quant/dequant.json    a GGUF type: blocks of seeded random bytes, and the hash of the values that gguf-py reads from
                      them (FNV-1a over the floats' bits, every NaN as 0x7fc00000); f8_e4m3 by torch
gguf/mixed.gguf       a llama of one layer whose matrices are of the types that no other golden has: random blocks
models/f8/NAME        llamas with F8_E4M3 weights: `block` as DeepSeek stores them, `channel` as compressed-tensors,
                      with scales of each shape, and one weight without
goldens/quant.json    what transformers answers with the dequantised weights, in f32 (make_goldens.py's cases)

    make_quant.py --types DIR     also one llama a type with its goldens, for a check by hand: GOLDENS=DIR
"""
import json, os, sys
import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig
from make_goldens import answers

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")
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


# ---- GGUF models ----

PROMPTS = {"one": [7], "some": [3, 11, 40, 8, 22, 9, 1, 30], "long": [(5 * i * i + 3 * i) % 47 + 1 for i in range(40)]}
NAMES = {"embed_tokens": "token_embd", "q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v",
         "o_proj": "attn_output", "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down",
         "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
SCALES = {"Q2_K": (80, 82), "Q3_K": (108, None), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208, None),
          "IQ4_NL": (0, None), "IQ4_XS": (0, None), "Q4_0": (0, None), "Q5_0": (0, None), "Q8_0": (0, None),
          "Q4_1": (0, 2), "Q5_1": (0, 2)}


def random_blocks(name, rows, cols, rng):
    """Valid stored rows of any type: random bytes, with scales that make values of a weight's size."""
    kind = gguf.GGMLQuantizationType[name]
    size, n_bytes = gguf.GGML_QUANT_SIZES[kind]
    b = rng.integers(0, 256, (rows, cols // size, n_bytes), dtype=np.uint8)
    if name == "MXFP4":
        b[:, :, 0] = rng.integers(119, 124, b.shape[:2])
    else:
        d, dmin = SCALES[name]
        put = lambda at, x: b[:, :, at:at + 2].view(np.float16).__setitem__((..., 0), x)
        put(d, rng.uniform(0.5, 1.5, b.shape[:2]))
        if dmin is not None:
            put(dmin, rng.uniform(0.5, 1.5, b.shape[:2]))
        with np.errstate(all="ignore"):
            spread = gguf.quants.dequantize(b.reshape(rows, -1), kind).std()
        put(d, b[:, :, d:d + 2].view(np.float16)[..., 0] * np.float16(0.15 / spread))
        if dmin is not None:
            put(dmin, b[:, :, dmin:dmin + 2].view(np.float16)[..., 0] * np.float16(0.15 / spread))
    b = b.reshape(rows, -1)
    return b, gguf.quants.dequantize(b, kind).astype(np.float32)


def permute(rows, n_heads):
    """llama's GGUF order of q and k rows: the two halves of a head side by side."""
    return rows.reshape(n_heads, 2, rows.shape[0] // n_heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def write_gguf(path, config, types, rng):
    """Random blocks into a file and their values into a model, which it returns."""
    model = AutoModelForCausalLM.from_config(config, torch_dtype=torch.float32).eval()
    w = gguf.GGUFWriter(path, "llama")
    w.add_context_length(config.max_position_embeddings)
    w.add_embedding_length(config.hidden_size)
    w.add_block_count(config.num_hidden_layers)
    w.add_feed_forward_length(config.intermediate_size)
    w.add_head_count(config.num_attention_heads)
    w.add_head_count_kv(config.num_key_value_heads)
    w.add_key_length(config.head_dim)
    w.add_value_length(config.head_dim)
    w.add_layer_norm_rms_eps(config.rms_norm_eps)
    w.add_rope_freq_base(config.rope_parameters["rope_theta"])
    w.add_rope_dimension_count(config.head_dim)
    w.add_vocab_size(config.vocab_size)
    w.add_tokenizer_model("gpt2")
    w.add_token_list([b"t%d" % i for i in range(config.vocab_size)])
    w.add_token_merges([])
    with torch.no_grad():
        for path_name, p in model.named_parameters():
            parts = path_name.split(".")
            module = parts[-2]
            name = {"lm_head": "output", "norm": "output_norm"}.get(module)
            name = (name or ("blk.%s." % parts[2] if "layers" in parts else "") + NAMES[module]) + ".weight"
            if p.dim() == 1:
                values = rng.uniform(0.5, 1.5, p.shape).astype(np.float32)
                w.add_tensor(name, values)
                p.copy_(torch.from_numpy(values))
                continue
            stored, values = random_blocks(types[module], *p.shape, rng)
            p.copy_(torch.from_numpy(values))
            heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(module)
            w.add_tensor(name, permute(stored, heads) if heads else stored,
                         raw_dtype=gguf.GGMLQuantizationType[types[module]])
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return model


def entry(path, model):
    return {"model": path, "adapter": None, "cases": answers(model, PROMPTS, new=16, top=32)}


def gguf_config(inter):
    return LlamaConfig(vocab_size=48, hidden_size=256, intermediate_size=inter, num_hidden_layers=1,
                       num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=256,
                       rope_theta=10000.0, tie_word_embeddings=False)


def gguf_mixed(root):
    os.makedirs(os.path.join(root, "gguf"), exist_ok=True)
    types = {"embed_tokens": "IQ4_NL", "lm_head": "Q2_K", "q_proj": "Q2_K", "k_proj": "Q3_K", "v_proj": "IQ4_XS",
             "o_proj": "IQ4_NL", "gate_proj": "IQ4_XS", "up_proj": "Q3_K", "down_proj": "MXFP4"}
    path = "gguf/mixed.gguf"
    return entry(path, write_gguf(os.path.join(root, path), gguf_config(64), types, np.random.default_rng(3)))


def gguf_types(root):
    """A model of each type alone (embedding included), rows of 256 everywhere."""
    os.makedirs(os.path.join(root, "gguf"), exist_ok=True)
    out = []
    for seed, name in enumerate(TYPES):
        config = gguf_config(512)
        config.num_attention_heads, config.num_key_value_heads, config.head_dim = 8, 4, 32
        config.num_hidden_layers = 2
        path = f"gguf/{name.lower()}.gguf"
        types = dict.fromkeys(list(NAMES) + ["lm_head"], name)
        out.append(entry(path, write_gguf(os.path.join(root, path), config, types, np.random.default_rng(seed))))
    return out


# ---- F8 models ----

F8_MAX = 448.0


def to_f8(values, scale):
    """Stored codes, and the values that they mean, for a scale that broadcasts."""
    codes = (values / scale).clamp(-F8_MAX, F8_MAX).to(torch.float8_e4m3fn)
    return codes, codes.float() * scale


def by_blocks(values):
    rows, cols = values.shape
    scale = torch.zeros(-(-rows // 128), -(-cols // 128))
    for r in range(scale.shape[0]):
        for c in range(scale.shape[1]):
            scale[r, c] = values[128 * r:128 * r + 128, 128 * c:128 * c + 128].abs().max() / F8_MAX
    whole = scale.repeat_interleave(128, 0)[:rows].repeat_interleave(128, 1)[:, :cols]
    return scale, to_f8(values, whole)


def f8_model(root, name, config, quantization, store):
    """A folder whose linear modules `store` turns into tensors; the model keeps what they mean."""
    torch.manual_seed(11)
    folder = os.path.join(root, "models", "f8", name)
    os.makedirs(folder, exist_ok=True)
    model = AutoModelForCausalLM.from_config(config, torch_dtype=torch.float32).eval()
    tensors = {}
    with torch.no_grad():
        for path, p in model.named_parameters():
            p.copy_((torch.randn_like(p) * (0.25 if p.dim() > 1 else 0.1) + (p.dim() == 1)).bfloat16().float())
            if "_proj" in path:
                tensors |= store(path, p)
            elif path != "lm_head.weight" or not config.tie_word_embeddings:
                tensors[path] = p.detach().to(torch.bfloat16)
    save_file({k: v.contiguous() for k, v in tensors.items()}, os.path.join(folder, "model.safetensors"),
              metadata={"format": "pt"})
    said = json.loads(config.to_json_string()) | {"quantization_config": quantization,
                                                  "architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    json.dump(said, open(os.path.join(folder, "config.json"), "w"), indent=1, sort_keys=True)
    return entry(f"models/f8/{name}", model)


def f8_block(root):
    def store(path, p):
        scale, (codes, values) = by_blocks(p)
        p.copy_(values)
        return {path: codes, path + "_scale_inv": scale}

    config = LlamaConfig(vocab_size=48, hidden_size=136, intermediate_size=132, num_hidden_layers=1,
                         num_attention_heads=2, num_key_value_heads=1, head_dim=16, max_position_embeddings=256,
                         rope_theta=10000.0, tie_word_embeddings=True)
    return f8_model(root, "block", config, {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
                                            "weight_block_size": [128, 128]}, store)


def f8_channel(root):
    def store(path, p):
        rows = p.abs().amax(1, keepdim=True) / F8_MAX
        shape, kind = {"q_proj": ([], torch.float32), "k_proj": ([1], torch.bfloat16), "v_proj": None,
                       "o_proj": ([32, 1], torch.bfloat16), "gate_proj": ([48], torch.float32),
                       }.get(path.split(".")[-2], ([-1, 1], torch.float32)) or (None, None)
        scale = torch.ones(1) if shape is None else rows if len(shape) and shape != [1] else rows.max()
        if shape is not None:
            scale = scale.reshape(shape).to(kind)
        codes, values = to_f8(p, scale.float().reshape(-1, 1))
        p.copy_(values)
        out = {path: codes}
        if shape is not None:
            out |= {path + "_scale": scale, path[:-len("weight")] + "input_scale": torch.tensor(0.5)}
        return out

    weights = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel", "dynamic": False}
    config = LlamaConfig(vocab_size=48, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
                         num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=256,
                         rope_theta=10000.0, tie_word_embeddings=False)
    return f8_model(root, "channel", config, {
        "quant_method": "compressed-tensors", "format": "float-quantized", "quantization_status": "compressed",
        "ignore": ["lm_head"], "kv_cache_scheme": None,
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None}}}, store)


def main(argv):
    os.makedirs(os.path.join(HERE, "quant"), exist_ok=True)
    with np.errstate(over="ignore"):
        json.dump(dequant_hashes(), open(os.path.join(HERE, "quant", "dequant.json"), "w"), indent=1)
    entries = [gguf_mixed(HERE), f8_block(HERE), f8_channel(HERE)]
    json.dump({"family": "quant", "entries": entries}, open(os.path.join(HERE, "goldens", "quant.json"), "w"))
    if argv[:1] == ["--types"]:
        os.makedirs(os.path.join(argv[1], "goldens"), exist_ok=True)
        json.dump({"family": "quant_types", "entries": gguf_types(argv[1])},
                  open(os.path.join(argv[1], "goldens", "quant_types.json"), "w"))


if __name__ == "__main__":
    main(sys.argv[1:])
