#!/usr/bin/env python3
"""Makes tests/golden/data: tiny models of each family, PEFT adapters, and what transformers + PEFT say they answer.

    pip install -r tests/golden/requirements.txt && python3 tests/golden/make_goldens.py [FAMILY … | extras]

Everything is seeded. Layout (the C tests and the HTTP test read whatever is there):
    models/FAMILY/f32     Hugging Face folder        adapters/FAMILY/NAME   PEFT folder        goldens/FAMILY.json
    goldens/mixed_batch.json    rows of one batch with different adapters
    goldens/weighted*.json      several adapters with weights: add_weighted_adapter("cat"), or several active at once
    goldens/moe_per_expert.json per-expert key style of old PEFT; values from weights merged by hand
    goldens/wrong_base.json     an adapter that must be refused
A case: prompt ids; `last` = the last position's best logits, l2 and sum of all; prompt_logprobs; greedy ids (eos
ignored) and greedy_safe_len, the ids before the first one that won by less than 0.002. All values come from the files
as reloaded from disk, so they hold what a file's types lose.

The llama base has a residual channel that no layer writes to, so that the `shows_*` adapters (a rank-1 head update)
can make every token of a reply the same letter: which adapter, in which version, is then visible in each token.
"""
import copy, json, math, os, random, re, shutil, sys, warnings
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (AutoModelForCausalLM, Gemma2Config, Gemma3TextConfig, GPT2Config, GraniteConfig, LlamaConfig,
                          MistralConfig, MixtralConfig, Olmo2Config, Phi3Config, Qwen2Config, Qwen3Config, Qwen3MoeConfig, logging)

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>"]
TEXT = """The bird said hello to the child. A parrot has one body and many voices. What is the time? It is early.
Bom dia, como vai? O tempo passa. Guten Tag, wie geht es dir? Die Zeit vergeht. 0123456789 ()[]{}.,;:!?'"-_/\\
""" * 4
TEMPLATE = ("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}"
            "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
SHAPE = dict(vocab_size=384, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=512, bos_token_id=1, eos_token_id=5, pad_token_id=3)


def shape(vocab, hidden, inner, layers, heads, kv, **more):
    return SHAPE | dict(vocab_size=vocab, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
                        num_attention_heads=heads, num_key_value_heads=kv, max_position_embeddings=128) | more


def rope(theta, kind="default", **more):
    return dict(rope_theta=theta, rope_type=kind, **more)


LLAMA3_ROPE = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                   original_max_position_embeddings=64)
# family: (configuration, seed of the weights, chosen for clear winners in the greedy runs)
FAMILIES = {
    "llama": (LlamaConfig(**SHAPE, rope_theta=10000.0, rope_scaling=LLAMA3_ROPE, tie_word_embeddings=False), 1),
    "qwen2": (Qwen2Config(**SHAPE, rope_theta=1e6, tie_word_embeddings=True), 2),
    "qwen3": (Qwen3Config(**SHAPE, head_dim=16, rope_theta=1e6, tie_word_embeddings=True), 3),
    "gemma3": (Gemma3TextConfig(**SHAPE, head_dim=16, query_pre_attn_scalar=12, sliding_window=8,
                                layer_types=["sliding_attention", "full_attention"]), 1),
    "gpt2": (GPT2Config(vocab_size=275, n_positions=96, n_embd=30, n_layer=2, n_head=3, n_inner=44, bos_token_id=1,
                        eos_token_id=5, pad_token_id=3), 5),
    "phi3": (Phi3Config(**shape(271, 32, 28, 2, 4, 2), original_max_position_embeddings=26, sliding_window=None,
                        rope_parameters=rope(10000.0, "longrope", partial_rotary_factor=0.75, short_factor=[1.0, 1.1, 1.4],
                                             long_factor=[1.3, 2.5, 6.0])), 6),
    "olmo2": (Olmo2Config(**shape(269, 30, 26, 2, 3, 1), rope_parameters=rope(500000.0), tie_word_embeddings=False), 7),
    "mistral": (MistralConfig(**shape(277, 28, 34, 2, 3, 1, head_dim=10), sliding_window=7, tie_word_embeddings=False,
                              rope_parameters=rope(10000.0, "linear", factor=2.0)), 8),
    "gemma2": (Gemma2Config(**shape(281, 28, 30, 2, 2, 1, head_dim=12), query_pre_attn_scalar=15, sliding_window=5,
                            attn_logit_softcapping=5.0, final_logit_softcapping=9.0, rope_parameters=rope(10000.0)), 9),
    "granite": (GraniteConfig(**shape(270, 30, 34, 2, 3, 3), embedding_multiplier=2.7, attention_multiplier=0.3,
                              residual_multiplier=0.55, logits_scaling=0.7, tie_word_embeddings=False, attention_bias=True,
                              rope_parameters=rope(10000.0)), 10),
    "smollm": (LlamaConfig(**shape(300, 36, 30, 2, 6, 2), tie_word_embeddings=True,
                           rope_parameters=rope(10000.0, "yarn", factor=4.0, original_max_position_embeddings=24)), 11),
    "mixtral": (MixtralConfig(**shape(273, 28, 14, 2, 2, 1), num_local_experts=4, num_experts_per_tok=2,
                              rope_parameters=rope(1e6)), 12),
    "qwen3_moe": (Qwen3MoeConfig(**shape(274, 26, 20, 2, 2, 1, head_dim=14), moe_intermediate_size=10, num_experts=5,
                                 num_experts_per_tok=2, norm_topk_prob=False, decoder_sparse_step=2,
                                 tie_word_embeddings=False, rope_parameters=rope(1e6)), 13),
}
FIRST = ("llama", "qwen2", "qwen3", "gemma3")  # with the first five kinds, four prompts and 32 new tokens
FLAT = ("mistral", "qwen3_moe")  # config.json with the keys of transformers 4


def parts(family):
    """What the symbols in ADAPTERS stand for."""
    p = dict(QV=["q_proj", "v_proj"], QKVO=["q_proj", "k_proj", "v_proj", "o_proj"], EMBED=["embed_tokens"], HEAD=["lm_head"],
             NORM=["model.norm"], IN_NORM=["input_layernorm"], Q="q_proj", OUT="o_proj", LAYERS="layers")
    p["ALL"] = p["QKVO"] + ["gate_proj", "up_proj", "down_proj"]
    if family == "phi3":
        p |= dict(QV=["qkv_proj"], ALL=["qkv_proj", "o_proj", "gate_up_proj", "down_proj"], Q="qkv_proj")
    if family == "gpt2":
        p |= dict(QV=["c_attn"], ALL=["attn.c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"], EMBED=["wte"], Q="c_attn",
                  NORM=["transformer.ln_f"], IN_NORM=["ln_1"], OUT="attn.c_proj", LAYERS="h")
    if family in ("mixtral", "qwen3_moe"):
        p |= dict(ALL=p["QKVO"])
    return p


EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
# name: (options of LoraConfig from the family's parts, what is done to the file, families)
ADAPTERS = {
    "qv_r4": (lambda p: dict(r=4, lora_alpha=8, target_modules=p["QV"]), {}, FIRST),
    "all_r8_bf16": (lambda p: dict(r=8, lora_alpha=16, target_modules=p["ALL"]), {"dtype": torch.bfloat16}, FIRST),
    "rslora_r8": (lambda p: dict(r=8, lora_alpha=8, use_rslora=True, target_modules=p["ALL"]), {}, FIRST),
    "patterns": (lambda p: dict(r=4, lora_alpha=8, target_modules=p["ALL"], rank_pattern={"q_proj": 6, "layers.1.mlp.up_proj": 3},
                                alpha_pattern={"q_proj": 3, "layers.1.mlp.up_proj": 12}), {}, FIRST),
    "head_r4": (lambda p: dict(r=4, lora_alpha=8, target_modules=["lm_head", "down_proj"]), {}, FIRST),
    # --- the others: one row a kind
    "all_r3_bf16": (lambda p: dict(r=3, lora_alpha=5, target_modules=p["ALL"]), {"dtype": torch.bfloat16},
                    ("gpt2", "phi3", "olmo2", "mistral", "gemma2", "granite", "smollm", "mixtral", "qwen3_moe")),
    "small_r2_f16": (lambda p: dict(r=2, lora_alpha=0.7, target_modules=p["ALL"]), {"dtype": torch.float16}, ("mistral", "smollm")),
    "negative_r3": (lambda p: dict(r=3, lora_alpha=-4.5, target_modules=p["QV"]), {"init": "eva"}, ("mistral", "smollm")),
    "rslora_r5": (lambda p: dict(r=5, lora_alpha=3, use_rslora=True, target_modules=p["QV"]), {"init": "gaussian"}, ("granite", "phi3")),
    "overlap_r3": (lambda p: dict(r=3, lora_alpha=8, target_modules=p["ALL"], rank_pattern={p["OUT"]: 5},
                                  alpha_pattern={p["Q"]: 20, rf".*\.0\..*{p['Q']}": 3, r"^nothing\..*": 99, p["OUT"]: 2}),
                   {"dtype": torch.bfloat16}, ("gpt2", "olmo2")),
    "layers1_r4": (lambda p: dict(r=4, lora_alpha=7, target_modules=p["ALL"], layers_to_transform=[1], layers_pattern=p["LAYERS"]),
                   {"dtype": torch.float16}, ("phi3", "granite")),
    "regex_r3": (lambda p: dict(r=3, lora_alpha=6, target_modules=r".*\.(" + "|".join(re.escape(x) for x in p["ALL"]) + ")",
                                exclude_modules=rf".*\.0\..*{re.escape(p['OUT'])}"), {"dtype": torch.bfloat16}, ("gpt2", "mixtral")),
    "sharded_r3": (lambda p: dict(r=3, lora_alpha=6, target_modules="all-linear"), {"shards": 2, "dtype": torch.bfloat16},
                   ("llama", "olmo2")),
    "dora_r3": (lambda p: dict(r=3, lora_alpha=5, use_dora=True, target_modules=p["ALL"]), {"dtype": torch.bfloat16},
                ("llama", "gpt2", "phi3", "olmo2", "qwen3_moe")),
    "dora_head_r3": (lambda p: dict(r=3, lora_alpha=2, use_dora=True, use_rslora=True, target_modules=p["HEAD"] + p["QV"]), {},
                     ("gemma2", "qwen3")),
    "dora_embed_r3": (lambda p: dict(r=3, lora_alpha=6, use_dora=True, target_modules=p["EMBED"] + p["QV"]), {}, ("llama", "gemma3")),
    "lora_bias_r3": (lambda p: dict(r=3, lora_alpha=6, lora_bias=True, target_modules=p["ALL"]), {"dtype": torch.bfloat16},
                     ("llama", "mistral", "granite")),
    "lora_bias_rs_r2": (lambda p: dict(r=2, lora_alpha=3, lora_bias=True, use_rslora=True, target_modules=p["QV"]), {},
                        ("qwen2", "mixtral")),
    "bias_all_r2": (lambda p: dict(r=2, lora_alpha=5, bias="all", target_modules=p["QV"]), {}, ("qwen2", "gpt2", "granite")),
    "bias_only_r2": (lambda p: dict(r=2, lora_alpha=5, bias="lora_only", target_modules=p["ALL"]), {"dtype": torch.float16},
                     ("qwen2", "gpt2")),
    "mts_head_r2": (lambda p: dict(r=2, lora_alpha=5, target_modules=p["QV"], modules_to_save=p["HEAD"]), {"dtype": torch.bfloat16},
                    ("phi3", "gemma3")),
    "mts_embed_r2": (lambda p: dict(r=2, lora_alpha=5, target_modules=p["ALL"], modules_to_save=p["EMBED"]), {"dtype": torch.bfloat16},
                     ("gemma2", "olmo2")),
    "mts_norms_r2": (lambda p: dict(r=2, lora_alpha=5, target_modules=p["QV"], modules_to_save=p["NORM"] + p["IN_NORM"]), {},
                     ("llama", "granite", "gpt2")),
    "embed_r3": (lambda p: dict(r=3, lora_alpha=5, target_modules=p["EMBED"] + p["QV"]), {"dtype": torch.bfloat16},
                 ("llama", "gemma2", "mistral", "gpt2")),
    "embed_head_r3": (lambda p: dict(r=3, lora_alpha=5, target_modules=p["EMBED"] + p["HEAD"]), {}, ("olmo2", "qwen3")),
    "head_r3": (lambda p: dict(r=3, lora_alpha=7, target_modules=p["HEAD"] + p["QV"]), {"dtype": torch.bfloat16}, ("gpt2", "mixtral")),
    "tokens_r2": (lambda p: dict(r=2, lora_alpha=5, target_modules=p["QV"], trainable_token_indices=[77, 12, 260, 33]), {},
                  ("llama", "gemma3")),
    "tokens_both_r2": (lambda p: dict(r=2, lora_alpha=5, target_modules=p["ALL"], trainable_token_indices={
        "embed_tokens": [200, 9, 31], "lm_head": [9, 31, 200, 8]}), {"dtype": torch.bfloat16}, ("mistral", "smollm")),
    "tied_embed_r2": (lambda p: dict(r=2, lora_alpha=5, target_modules=p["QV"], modules_to_save=p["EMBED"], ensure_weight_tying=True),
                      {"dtype": torch.bfloat16}, ("smollm", "qwen2")),
    "alora_r4": (lambda p: dict(r=4, lora_alpha=8, target_modules=p["ALL"], alora_invocation_tokens=[17, 33, 29]), {},
                 ("llama", "mistral", "qwen3_moe")),
    "alora_twin_r3": (lambda p: dict(r=3, lora_alpha=2, use_rslora=True, target_modules=p["ALL"], alora_invocation_tokens=[21, 21]),
                      {"dtype": torch.bfloat16}, ("gemma3", "granite")),
    "experts_r2": (lambda p: dict(r=2, lora_alpha=3, target_modules=p["QV"], target_parameters=EXPERTS), {}, ("mixtral", "qwen3_moe")),
    "router_r2": (lambda p: dict(r=2, lora_alpha=3, use_rslora=True, target_modules=p["QV"], target_parameters=["mlp.gate.weight", EXPERTS[1]]),
                  {"dtype": torch.bfloat16}, ("mixtral", "qwen3_moe")),
    "moe_named_r2": (lambda p: dict(r=2, lora_alpha=5, target_modules=p["QKVO"] + ["gate_proj", "up_proj", "down_proj"]),
                     {"dtype": torch.bfloat16}, ("mixtral", "qwen3_moe")),
}


# ---- models

def make_tokenizer(folder, vocab):
    t = Tokenizer(models.BPE(unk_token=None))
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    trainer = trainers.BpeTrainer(vocab_size=vocab, special_tokens=SPECIAL, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    t.train_from_iterator(TEXT.splitlines(), trainer)
    t.save(os.path.join(folder, "tokenizer.json"))
    json.dump({"bos_token": "<s>", "eos_token": "<|im_end|>", "pad_token": "<pad>", "unk_token": "<unk>",
               "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
               "chat_template": TEMPLATE}, open(os.path.join(folder, "tokenizer_config.json"), "w"), indent=1)
    return t


def make_base(family):
    config, seed = FAMILIES[family]
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if family in FIRST:
                p.normal_(0, 0.2 if p.dim() > 1 else 0.1)
            elif p.dim() > 1 and not re.search("embed|lm_head|wte|wpe", name):
                p.normal_(0, 1.3 / math.sqrt(p.shape[0 if family == "gpt2" else -1]))
            else:
                p.normal_(0, 0.35 if p.dim() > 1 else 0.2)
            if re.search(r"(norm|ln_\w)\.weight$", name) and "gemma" not in family:
                p.add_(1.0)
        if family == "llama":  # the channel that no layer writes to
            model.model.embed_tokens.weight[:, 0] = 1.0
            for layer in model.model.layers:
                layer.self_attn.o_proj.weight[0] = 0
                layer.mlp.down_proj.weight[0] = 0
            model.model.norm.weight[0] = 1.0
            model.lm_head.weight[:, 0] = 0
    return model.eval()


def flatten(path):
    """config.json with the keys that most files still have: rope_theta and rope_scaling, num_experts."""
    c = json.load(open(path))
    r = c.pop("rope_parameters")
    if "full_attention" in r:
        c["rope_local_base_freq"] = r["sliding_attention"]["rope_theta"]
        r = r["full_attention"]
    c["rope_theta"] = r.pop("rope_theta")
    c["rope_scaling"] = r if r["rope_type"] != "default" else None
    if "num_local_experts" in c:
        c["num_experts"] = c.pop("num_local_experts")
    json.dump(c, open(path, "w"), indent=2, sort_keys=True)


def load_base(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if model.config.model_type in ("mixtral", "qwen3_moe"):
        model.set_experts_implementation("eager")  # the fused one wants widths that are multiples of 4
    return model


# ---- answers

def prompts(family, seed):
    g = torch.Generator().manual_seed(seed)
    lengths = (1, 6, 23, 70) if family in FIRST else (1, 7, 37)
    return {f"p{n}": torch.randint(6, FAMILIES[family][0].vocab_size, (n,), generator=g).tolist() for n in lengths}


def alora_prompts(seed, inv):
    r = random.Random(seed)
    x = lambda n: [r.choice([t for t in range(40, 260)]) for _ in range(n)]
    return {"none": x(9), "middle": x(11) + inv + x(5), "twice": x(4) + inv + x(3) + inv + x(4), "end": x(6) + inv,
            "start": inv + x(6), "partial": x(5) + inv[:-1], "overlapping": x(4) + inv + inv[1:] + x(2)}


def alora_start(prompt, inv):
    return max((i for i in range(len(prompt) - len(inv) + 1) if prompt[i:i + len(inv)] == inv), default=None)


@torch.no_grad()
def answers(model, cases, new=32, top=64, inv=None):
    """By the longest way: every token from the whole sequence, no cache. All cases run as one batch, padded on the
    right, where no earlier token sees it; longrope chooses its factors by the length, so there each runs alone."""
    if model.config.model_type == "phi3" and len(cases) > 1:
        return {name: answers(model, {name: ids}, new, top, inv)[name] for name, ids in cases.items()}
    rows, starts = [list(ids) for ids in cases.values()], [alora_start(ids, inv) if inv else None for ids in cases.values()]

    def run():
        width = max(map(len, rows))
        more = {"alora_offsets": [None if s is None else width - s for s in starts]} if inv else {}
        ids = torch.tensor([r + [3] * (width - len(r)) for r in rows])
        return [lg[:len(r)].double() for lg, r in zip(model(input_ids=ids, use_cache=False, **more).logits, rows)]

    result, logits = {}, run()
    for (name, ids), lg in zip(cases.items(), logits):
        logp, best = lg.log_softmax(-1), lg[-1].topk(top)
        last = {"top_ids": best.indices.tolist(), "top_logits": [round(x, 6) for x in best.values.tolist()],
                "l2": round(lg[-1].norm().item(), 6), "sum": round(lg[-1].sum().item(), 5)}
        result[name] = {"prompt": list(ids), "last": last, "greedy": [], "greedy_safe_len": new,
                        "prompt_logprobs": [round(logp[i, ids[i + 1]].item(), 6) for i in range(len(ids) - 1)]}
    for step in range(new):
        for case, row, lg in zip(result.values(), rows, logits if step == 0 else run()):
            best = lg[-1].topk(2)
            if best.values[0] - best.values[1] < 2e-3:
                case["greedy_safe_len"] = min(case["greedy_safe_len"], step)
            case["greedy"].append(best.indices[0].item())
            row.append(case["greedy"][-1])
    return result


def size_of(family, kind=None):
    return dict(new=32, top=64) if family in FIRST and kind in [None] + list(ADAPTERS)[:5] else dict(new=14, top=32)


# ---- adapters

def randomise(model, seed, first):
    torch.manual_seed(seed)
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "lora_magnitude_vector" in key:
                p.mul_(1 + 0.15 * torch.randn_like(p))
            elif "lora_" in key:
                p.normal_(0, 0.15)
            elif "trainable_tokens_delta" in key:
                p.normal_(0, 0.3)
            elif "modules_to_save" in key or (key.endswith("bias") and p.requires_grad):
                p.add_(0.2 * torch.randn_like(p))


def tidy(folder, family, change):
    """PEFT writes where the base lay: the data names it by its family. lm_head's untouched copy is left out."""
    readme, path = os.path.join(folder, "README.md"), os.path.join(folder, "adapter_config.json")
    if os.path.exists(readme):
        os.remove(readme)
    config = json.load(open(path))
    config["base_model_name_or_path"] = "tiny-" + family
    for key in ("target_modules", "target_parameters", "modules_to_save"):  # sets, in any order
        if isinstance(config.get(key), list):
            config[key].sort()
    if "init" in change:  # says how training began; changes nothing
        config["init_lora_weights"] = change["init"]
    json.dump(config, open(path, "w"), indent=1, sort_keys=True)
    weights = os.path.join(folder, "adapter_model.safetensors")
    kept = {k: v.to(change.get("dtype", v.dtype)).contiguous() for k, v in load_file(weights).items()
            if not k.endswith(("lm_head.base_layer.weight", "embed_tokens.base_layer.weight"))}
    save_file(kept, weights, {"format": "pt"})


def split(folder, n):
    """The file in n shards with an index."""
    weights = os.path.join(folder, "adapter_model.safetensors")
    t = load_file(weights)
    os.remove(weights)
    files = {f"adapter_model-{i + 1:05d}-of-{n:05d}.safetensors": {k: t[k] for k in sorted(t)[i::n]} for i in range(n)}
    for file, part in files.items():
        save_file(part, os.path.join(folder, file), {"format": "pt"})
    index = {"metadata": {"total_size": sum(v.numel() * v.element_size() for v in t.values())},
             "weight_map": {k: f for f, part in files.items() for k in part}}
    json.dump(index, open(os.path.join(folder, "adapter_model.safetensors.index.json"), "w"), indent=1, sort_keys=True)


def reload(base, folder):
    return PeftModel.from_pretrained(copy.deepcopy(base), folder).float().eval()


def make_adapter(base, family, name, folder, seed):
    options, change, _ = ADAPTERS[name]
    options = options(parts(family)) | ({"fan_in_fan_out": True} if family == "gpt2" else {})
    model = get_peft_model(copy.deepcopy(base), LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **options))
    randomise(model, seed, family in FIRST)
    model.save_pretrained(folder)
    tidy(folder, family, change)
    model = reload(base, folder)
    if "shards" in change:
        split(folder, change["shards"])
    return model, options.get("alora_invocation_tokens")


def make_shows(base, letter, folder, tokenizer):
    """lm_head += 1000 * onehot(letter) x e0: the constant channel decides every token."""
    model = get_peft_model(copy.deepcopy(base), LoraConfig(task_type="CAUSAL_LM", r=1, lora_alpha=1, target_modules=["lm_head"]))
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "lora_" in key:
                p.zero_()
                p[(0, 0) if "lora_A" in key else (tokenizer.token_to_id(letter), 0)] = 1.0 if "lora_A" in key else 1000.0
    model.save_pretrained(folder)
    tidy(folder, "llama", {})


def make_family(family):
    number = list(FAMILIES).index(family)
    model_path, folder = f"models/{family}/f32", os.path.join(HERE, "models", family, "f32")
    make_base(family).save_pretrained(folder)
    if family in FLAT:
        flatten(os.path.join(folder, "config.json"))
    tokenizer = make_tokenizer(folder, FAMILIES[family][0].vocab_size)
    cases, base = prompts(family, 100 + number), load_base(folder)
    entries = [{"model": model_path, "adapter": None,
                "cases": answers(base, cases, **size_of(family))}]
    for seed, (name, (_, _, families)) in enumerate(ADAPTERS.items()):
        if family not in families:
            continue
        path, size = f"adapters/{family}/{name}", size_of(family, name)
        model, inv = make_adapter(base, family, name, os.path.join(HERE, path), 1000 * number + seed)
        wanted = alora_prompts(seed, inv) if inv else cases if size["new"] == 32 else dict(list(cases.items())[1:3])
        entries.append({"model": model_path, "adapter": path, "cases": answers(model, wanted, inv=inv, **size)})
    if family == "llama":
        for letter in "ABCD":
            make_shows(base, letter, os.path.join(HERE, "adapters", family, f"shows_{letter}"), tokenizer)
    if family == "olmo2":
        entries += bf16_in_shards(family, base, cases)
    write("goldens/" + family, {"family": family, "entries": entries})
    print(family, [min(c["greedy_safe_len"] for c in e["cases"].values()) for e in entries], flush=True)


def bf16_in_shards(family, base, cases):
    """A bf16 base in two shards; the values are those of its weights with f32 arithmetic."""
    path = f"models/{family}/bf16_sharded"
    folder = os.path.join(HERE, path)
    copy.deepcopy(base).bfloat16().save_pretrained(folder, max_shard_size="24KB")
    make_tokenizer(folder, FAMILIES[family][0].vocab_size)
    rounded, result = load_base(folder), []
    for adapter in (None, f"adapters/{family}/all_r3_bf16", f"adapters/{family}/dora_r3"):
        model = reload(rounded, os.path.join(HERE, adapter)) if adapter else rounded
        result.append({"model": path, "adapter": adapter,
                       "cases": answers(model, dict(list(cases.items())[1:]), **size_of(family))})
    return result


def write(name, data):
    path = os.path.join(HERE, name + ".json")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    json.dump(data, open(path, "w"), separators=(",", ":"))


# ---- several adapters at once

def make_mixed():
    batches = []
    for family in ("llama", "gemma3", "gpt2", "mixtral"):
        entries = [e for e in json.load(open(os.path.join(HERE, "goldens", family + ".json")))["entries"] if e["model"].endswith("/f32")]
        rows = []
        for i, e in enumerate(entries):
            name = list(e["cases"])[(i + 1) % len(e["cases"])]
            case = e["cases"][name]
            rows.append({"adapter": e["adapter"], "prompt": case["prompt"], "last": case["last"], "greedy": case["greedy"],
                         "greedy_safe_len": case["greedy_safe_len"]})
        batches.append({"model": f"models/{family}/f32", "rows": rows[:14]})
    write("goldens/mixed_batch", batches)


WEIGHTED = {
    "llama": [("cat_two", ["qv_r4", "rslora_r8"], [0.7, -0.4], "cat"), ("cat_three", ["patterns", "qv_r4", "head_r4"], [1.5, -1.0, 0.3], "cat"),
              ("stack_two", ["qv_r4", "all_r8_bf16"], [1, 1], "active_together"), ("stack_bias", ["lora_bias_r3", "qv_r4"], [1, 1], "active_together"),
              ("stack_embed", ["embed_r3", "head_r4"], [1, 1], "active_together"), ("stack_dora", ["dora_r3", "qv_r4"], [1, 1], "active_together")],
    # DoRA first: PEFT lets its factor act on what the adapters before it added, too, which is no sum
    "gpt2": [("cat_three", ["all_r3_bf16", "overlap_r3", "head_r3"], [0.5, 2.0, -0.8], "cat"),
             ("stack_two", ["head_r3", "embed_r3"], [1, 1], "active_together")],
    "mixtral": [("stack_experts", ["experts_r2", "all_r3_bf16"], [1, 1], "active_together")],
}


def make_weighted(family, plan):
    base, entries = load_base(os.path.join(HERE, "models", family, "f32")), []
    r = random.Random(family)
    cases = {f"p{n}": [r.randrange(6, FAMILIES[family][0].vocab_size) for _ in range(n)] for n in (5, 21)}
    for name, kinds, weights, how in plan:
        paths = [f"adapters/{family}/{k}" for k in kinds]
        model = PeftModel.from_pretrained(copy.deepcopy(base), os.path.join(HERE, paths[0]), adapter_name="a0")
        for i, path in enumerate(paths[1:], 1):
            model.load_adapter(os.path.join(HERE, path), adapter_name=f"a{i}")
        names = [f"a{i}" for i in range(len(paths))]
        model = model.float().eval()
        if how == "cat":
            model.add_weighted_adapter(names, weights, "sum", combination_type="cat")
            model.set_adapter("sum")
        else:
            model.base_model.set_adapter(names)
        entries.append({"name": name, "adapters": paths, "weights": weights, "type": how,
                        "cases": answers(model.eval(), cases, new=14, top=32)})
    write("goldens/weighted" + ("" if family == "llama" else "_" + family), {"model": f"models/{family}/f32", "entries": entries})


@torch.no_grad()
def make_per_expert(family, seed):
    """A file as PEFT wrote it while each expert was a module; the values come from merged weights."""
    base = load_base(os.path.join(HERE, "models", family, "f32"))
    torch.manual_seed(seed)
    tensors, rank, alpha = {}, 2, 5
    root, names = ("block_sparse_moe.experts", ("w1", "w3", "w2")) if family == "mixtral" else ("mlp.experts", ("gate_proj", "up_proj", "down_proj"))

    def pair(path, weight):
        a, b = 0.15 * torch.randn(rank, weight.shape[1]), 0.15 * torch.randn(weight.shape[0], rank)
        tensors[f"base_model.model.model.{path}.lora_A.weight"], tensors[f"base_model.model.model.{path}.lora_B.weight"] = a, b
        weight.add_(alpha / rank * b @ a)

    for i, layer in enumerate(base.model.layers):
        pair(f"layers.{i}.self_attn.q_proj", layer.self_attn.q_proj.weight)
        if not hasattr(layer.mlp, "experts"):
            continue
        experts = layer.mlp.experts
        inner = experts.gate_up_proj.shape[1] // 2
        for e in range(experts.gate_up_proj.shape[0]):
            pair(f"layers.{i}.{root}.{e}.{names[0]}", experts.gate_up_proj[e, :inner])
            pair(f"layers.{i}.{root}.{e}.{names[1]}", experts.gate_up_proj[e, inner:])
            pair(f"layers.{i}.{root}.{e}.{names[2]}", experts.down_proj[e])
    path = f"adapters/{family}/per_expert_r2"
    os.makedirs(os.path.join(HERE, path), exist_ok=True)
    save_file(tensors, os.path.join(HERE, path, "adapter_model.safetensors"), {"format": "pt"})
    json.dump({"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "tiny-" + family, "r": rank, "lora_alpha": alpha,
               "target_modules": ["q_proj", *names], "bias": "none", "lora_dropout": 0.0, "fan_in_fan_out": False, "inference_mode": True},
              open(os.path.join(HERE, path, "adapter_config.json"), "w"), indent=1)
    cases = prompts(family, seed)
    cases.pop("p1")
    return {"model": f"models/{family}/f32", "adapter": path,
            "cases": answers(base, cases, new=14, top=32)}


def make_wrong_base():
    """An adapter of another width than the base that it is offered to."""
    config = LlamaConfig(**shape(384, 24, 48, 2, 4, 2))
    model = get_peft_model(AutoModelForCausalLM.from_config(config), LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"]))
    path = "adapters/llama/wrong_base"
    model.save_pretrained(os.path.join(HERE, path))
    tidy(os.path.join(HERE, path), "llama", {})
    write("goldens/wrong_base", {"adapter": path, "model": "models/llama/f32"})


def main():
    logging.set_verbosity_error(), logging.disable_progress_bar(), warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    wanted = sys.argv[1:] or list(FAMILIES)
    for family in wanted:
        if family != "extras":
            for part in ("models", "adapters"):
                shutil.rmtree(os.path.join(HERE, part, family), ignore_errors=True)
            make_family(family)
    make_mixed()
    for family, plan in WEIGHTED.items():
        make_weighted(family, plan)
    write("goldens/moe_per_expert", {"entries": [make_per_expert("mixtral", 31), make_per_expert("qwen3_moe", 32)]})
    make_wrong_base()


if __name__ == "__main__":
    sys.exit(main())
