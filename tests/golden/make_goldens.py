#!/usr/bin/env python3
"""Makes tests/golden/data: tiny models of each family, PEFT adapters, and what transformers + PEFT say they answer.

    pip install -r tests/golden/requirements.txt && python3 tests/golden/make_goldens.py

Everything is seeded. Layout (the C test and the HTTP test read it):
    models/FAMILY/f32     Hugging Face folder        adapters/FAMILY/NAME   PEFT folder        goldens/FAMILY.json
A case: prompt ids; `last` = the last position's 64 best logits; prompt_logprobs; 32 greedy ids (eos ignored) and
greedy_safe_len, the ids before the first one that won by less than 0.002.

The llama base has a residual channel that no layer writes to, so that the `shows_*` adapters (a rank-1 head update)
can make every token of a reply the same letter: which adapter, in which version, is then visible in each token.
"""
import json, os, shutil, sys
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, Qwen2Config, Qwen3Config

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")
VOCAB = 384
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>"]
TEXT = """The bird said hello to the child. A parrot has one body and many voices. What is the time? It is early.
Bom dia, como vai? O tempo passa. Guten Tag, wie geht es dir? Die Zeit vergeht. 0123456789 ()[]{}.,;:!?'"-_/\\
""" * 4
TEMPLATE = ("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}"
            "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
SHAPE = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=512, bos_token_id=1, eos_token_id=5, pad_token_id=3)
LLAMA3_ROPE = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                   original_max_position_embeddings=64)
FAMILIES = {
    "llama": LlamaConfig(**SHAPE, rope_theta=10000.0, rope_scaling=LLAMA3_ROPE, tie_word_embeddings=False),
    "qwen2": Qwen2Config(**SHAPE, rope_theta=1e6, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SHAPE, head_dim=16, rope_theta=1e6, tie_word_embeddings=True),
    "gemma3": Gemma3TextConfig(**SHAPE, head_dim=16, query_pre_attn_scalar=12, sliding_window=8,
                               layer_types=["sliding_attention", "full_attention"]),
}
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
BASE_SEED = {"llama": 1, "qwen2": 2, "qwen3": 3, "gemma3": 1}  # chosen for clear winners in the greedy runs
ADAPTERS = {
    "qv_r4": dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]),
    "all_r8_bf16": dict(r=8, lora_alpha=16, target_modules=LINEARS),
    "rslora_r8": dict(r=8, lora_alpha=8, use_rslora=True, target_modules=LINEARS),
    "patterns": dict(r=4, lora_alpha=8, target_modules=LINEARS, rank_pattern={"q_proj": 6, "layers.1.mlp.up_proj": 3},
                     alpha_pattern={"q_proj": 3, "layers.1.mlp.up_proj": 12}),
    "head_r4": dict(r=4, lora_alpha=8, target_modules=["lm_head", "down_proj"]),
}


def make_tokenizer(folder):
    t = Tokenizer(models.BPE(unk_token=None))
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=SPECIAL, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    t.train_from_iterator(TEXT.splitlines(), trainer)
    t.save(os.path.join(folder, "tokenizer.json"))
    json.dump({"bos_token": "<s>", "eos_token": "<|im_end|>", "pad_token": "<pad>", "unk_token": "<unk>",
               "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
               "chat_template": TEMPLATE}, open(os.path.join(folder, "tokenizer_config.json"), "w"), indent=1)
    return t


def make_base(family, seed):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(FAMILIES[family], torch_dtype=torch.float32)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.normal_(0, 0.2 if p.dim() > 1 else 0.1)
            if name.endswith("norm.weight") and family != "gemma3":
                p.add_(1.0)
        if family == "llama":  # the channel that no layer writes to
            model.model.embed_tokens.weight[:, 0] = 1.0
            for layer in model.model.layers:
                layer.self_attn.o_proj.weight[0] = 0
                layer.mlp.down_proj.weight[0] = 0
            model.model.norm.weight[0] = 1.0
            model.lm_head.weight[:, 0] = 0
    return model.eval()


@torch.no_grad()
def answer(model, prompt):
    ids, greedy, margin, safe = list(prompt), [], [], 32
    logits = model(torch.tensor([ids])).logits[0].double()
    logp = logits.log_softmax(-1)
    top = logits[-1].topk(64)
    case = {"prompt": list(prompt), "last": {"top_ids": top.indices.tolist(),
            "top_logits": [round(x, 7) for x in top.values.tolist()]},
            "prompt_logprobs": [round(logp[i, prompt[i + 1]].item(), 7) for i in range(len(prompt) - 1)]}
    for i in range(32):
        best = model(torch.tensor([ids])).logits[0, -1].double().topk(2)
        if best.values[0] - best.values[1] < 2e-3:
            safe = min(safe, i)
        greedy.append(best.indices[0].item())
        ids.append(greedy[-1])
    return case | {"greedy": greedy, "greedy_safe_len": safe}


def prompts(seed):
    g = torch.Generator().manual_seed(seed)
    return {f"p{n}": torch.randint(6, VOCAB, (n,), generator=g).tolist() for n in (1, 6, 23, 70)}


def save_adapter(model, folder, bf16=False):
    if bf16:
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.data = p.data.bfloat16()
    model.save_pretrained(folder)
    os.remove(os.path.join(folder, "README.md"))


def make_adapter(family, name, options, folder, seed):
    model = get_peft_model(make_base(family, BASE_SEED[family]), LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **options))
    torch.manual_seed(seed)
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "lora_" in key:
                p.normal_(0, 0.15)
    save_adapter(model, folder, name.endswith("bf16"))


def make_shows(letter, folder, tokenizer):
    """lm_head += 1000 * onehot(letter) x e0: the constant channel decides every token."""
    model = get_peft_model(make_base("llama", BASE_SEED["llama"]), LoraConfig(task_type="CAUSAL_LM", r=1, lora_alpha=1,
                                                             target_modules=["lm_head"]))
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "lora_" in key:
                p.zero_()
                p[(0, 0) if "lora_A" in key else (tokenizer.token_to_id(letter), 0)] = 1.0 if "lora_A" in key else 1000.0
    save_adapter(model, folder)


def main():
    shutil.rmtree(HERE, ignore_errors=True)
    os.makedirs(os.path.join(HERE, "goldens"))
    for number, family in enumerate(FAMILIES):
        folder = os.path.join(HERE, "models", family, "f32")
        make_base(family, BASE_SEED[family]).save_pretrained(folder)
        tokenizer = make_tokenizer(folder)
        cases = prompts(100 + number)
        base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        entries = [{"model": f"models/{family}/f32", "adapter": None,
                    "cases": {k: answer(base, p) for k, p in cases.items()}}]
        for seed, (name, options) in enumerate(ADAPTERS.items()):
            path = os.path.join(HERE, "adapters", family, name)
            make_adapter(family, name, options, path, 1000 * number + seed)
            base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            model = PeftModel.from_pretrained(base, path).float().eval()
            entries.append({"model": f"models/{family}/f32", "adapter": f"adapters/{family}/{name}",
                            "cases": {k: answer(model, p) for k, p in cases.items()}})
        if family == "llama":
            for letter in "ABCD":
                make_shows(letter, os.path.join(HERE, "adapters", family, f"shows_{letter}"), tokenizer)
        json.dump({"family": family, "entries": entries}, open(os.path.join(HERE, "goldens", family + ".json"), "w"))
        print(family, [min(c["greedy_safe_len"] for c in e["cases"].values()) for e in entries])
    strip_paths()


def strip_paths():
    """PEFT writes where the base lay; the data names it by its family instead. lm_head's untouched copy is left out."""
    from safetensors.torch import load_file, save_file
    for root, _, files in os.walk(os.path.join(HERE, "adapters")):
        if "adapter_config.json" in files:
            path = os.path.join(root, "adapter_config.json")
            config = json.load(open(path))
            config["base_model_name_or_path"] = "tiny-" + os.path.basename(os.path.dirname(root))
            json.dump(config, open(path, "w"), indent=1, sort_keys=True)
            weights = os.path.join(root, "adapter_model.safetensors")
            kept = {k: v for k, v in load_file(weights).items() if ".base_layer." not in k}
            save_file(kept, weights, {"format": "pt"})


if __name__ == "__main__":
    sys.exit(main())
