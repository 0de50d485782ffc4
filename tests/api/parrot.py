"""A model that says texts by heart: a tiny llama whose next token depends on the last one alone.

Embeddings are one-hot and its layer adds nothing, so lm_head is a table from token to token. A text is cut into pieces
that occur once in all texts; each piece is a token and leads to the next, the last to the end. Which text is said
depends on the prompt's last token: a chat template ends with `<|cue_NAME|>`.
"""
import json, os, struct

import numpy as np

# What the last message says behind "#" is the cue; after a tool's result it is "after". In the style of Hermes.
CUE = ("{%- set last = messages[-1] %}{%- set words = last.content.split('#') %}"
       "{%- set cue = 'after' if last.role == 'tool' else (words[-1] if words | length > 1 else 'plain') %}"
       "<|im_start|>assistant\n<|cue_{{ cue }}|>")
THINKS = CUE + "{{ '<think>\n' if cue == 'open' }}"
MESSAGES = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls %}\n<tool_call>\n"
            "{\"name\": \"{{ c.function.name }}\", \"arguments\": {{ c.function.arguments | tojson }}}\n</tool_call>"
            "{% endfor %}<|im_end|>\n{% endfor %}")
HERMES = ("{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}"
          "<tool_call>{\"name\": NAME, \"arguments\": ARGS}</tool_call><|im_end|>\n{% endif %}" + MESSAGES)
HERMES_THINKS, HERMES = HERMES + THINKS, HERMES + CUE


def bytes_alphabet():
    """GPT-2's: a printable character for each byte."""
    plain = [b for b in range(256) if 0x21 <= b <= 0x7E or 0xA1 <= b <= 0xAC or 0xAE <= b]
    more = iter(range(256, 512))
    return {b: chr(b if b in plain else next(more)) for b in range(256)}


def cut(text, used, markers):
    """Pieces of a few characters, none of which is in `used`, which they join; markers stay whole."""
    if not text:
        return []
    marker = next((m for m in markers if text.startswith(m)), None)
    most = min([16, len(text)] + [text.index(m) for m in markers if m in text])  # not beyond the next marker
    for n in [len(marker)] if marker else range(min(3, most), most + 1):
        piece = text[:n]
        if piece in used:
            continue
        used.add(piece)
        rest = cut(text[n:], used, markers)
        if rest is not None:
            return [piece] + rest
        used.discard(piece)
    return None


def write_safetensors(path, tensors):
    header, at = {}, 0
    for name, t in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(t.shape), "data_offsets": [at, at + t.nbytes]}
        at += t.nbytes
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(head)) + head + b"".join(t.tobytes() for t in tensors.values()))


def make(folder, texts, template=HERMES, special=(), more=(), words=(), context=32768):
    """A model folder. texts: {cue: text}; "" stands for prompts that end with a line break, a marker for itself. `special`: markers
    that are special tokens, hidden in plain output; `more`: further vocabulary; `words` are tokens in prompts, too, so that long ones
    are short."""
    os.makedirs(folder)
    alphabet = bytes_alphabet()
    names = ["<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", *special, *(f"<|cue_{c}|>" for c in texts if c and c not in special)]
    ids = {n: i for i, n in enumerate(names)}
    vocab = dict(ids)
    for b in range(256):
        vocab[alphabet[b]] = len(vocab)
    used, chain = set(m for m in more), []
    for cue, text in texts.items():
        tokens = [ids[cue] if cue in special else ids[f"<|cue_{cue}|>"] if cue else vocab[alphabet[10]]]
        pieces = cut(text, used, special)
        assert pieces, f"{text!r} can't be cut"
        for piece in pieces:
            name = piece if piece in ids else "".join(alphabet[b] for b in piece.encode())
            tokens.append(vocab.setdefault(name, len(vocab)))
        chain += zip(tokens, tokens[1:] + [ids["<|im_end|>"]])
    for m in more:
        vocab.setdefault("".join(alphabet[b] for b in m.encode()), len(vocab))
    for w in words:
        vocab.setdefault(w, len(vocab))
        vocab.setdefault(alphabet[32] + w, len(vocab))
    n = (len(vocab) + 7) // 8 * 8
    head = np.zeros((n, n), np.float32)
    head[ids["<|im_end|>"]] = 2  # rows are scaled by √n before: sampled at temperature 1, no token but the next has a chance
    for a, b in chain:
        assert head[:, a].max() <= 2, "a token has two that follow"
        head[b, a] = 4
    zeros = lambda *shape: np.zeros(shape, np.float32)
    ones = np.ones(n, np.float32)
    layer = "model.layers.0."
    write_safetensors(os.path.join(folder, "model.safetensors"), {
        "model.embed_tokens.weight": np.eye(n, dtype=np.float32), "lm_head.weight": head, "model.norm.weight": ones,
        layer + "input_layernorm.weight": ones, layer + "post_attention_layernorm.weight": ones,
        layer + "self_attn.q_proj.weight": zeros(8, n), layer + "self_attn.k_proj.weight": zeros(8, n),
        layer + "self_attn.v_proj.weight": zeros(8, n), layer + "self_attn.o_proj.weight": zeros(n, 8),
        layer + "mlp.gate_proj.weight": zeros(8, n), layer + "mlp.up_proj.weight": zeros(8, n),
        layer + "mlp.down_proj.weight": zeros(n, 8)})
    added = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for t, i in ids.items()]
    files = {
        "config.json": {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": n, "vocab_size": n,
                        "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1,
                        "head_dim": 8, "max_position_embeddings": context, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
                        "hidden_act": "silu", "tie_word_embeddings": False, "torch_dtype": "float32", "bos_token_id": 1,
                        "eos_token_id": 5},
        "tokenizer_config.json": {"bos_token": "<s>", "eos_token": "<|im_end|>", "chat_template": template},
        "tokenizer.json": {"version": "1.0", "added_tokens": added, "normalizer": None,
                           "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
                           "post_processor": None,
                           "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
                           "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                                     "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                                     "ignore_merges": bool(words), "vocab": vocab, "merges": []}}}
    for name, content in files.items():
        with open(os.path.join(folder, name), "w") as f:
            json.dump(content, f)
    return folder
