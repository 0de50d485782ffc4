"""Tokenizer, base model and adapters of the demo, trained on the corpus.

The loss counts the assistant's words and their end only. Computation is in bfloat16 where the CPU has it; the base is
rounded to the bfloat16 weights that are saved before the adapters are trained, so they fit what is served.
"""

import json
import math
import os
import random
import time

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from corpus import Corpus

PAD, BOS, EOS, START, END = "<|pad|>", "<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>"
SPECIALS = [PAD, BOS, EOS, START, END]
VOCAB = 2048
MAX_TOKENS = 192
# Words with at most one sign before them, digits one by one, runs of signs, line ends, spaces.
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


# --- tokenizer --------------------------------------------------------------------------------------------------------


def train_tokenizer(seed, n=20000):
    corpus = Corpus(seed)
    texts = []
    for k in range(n):
        voice = ("base", "bikeshop", "pt", "de", "safety")[k % 5]
        texts += [text for _, text in corpus.conversation(voice)] + ["assistant\n", "user\n"]
        if k % 4 == 0:
            texts.append("system\n")
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=SPECIALS,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tok.train_from_iterator(texts, trainer)
    tok.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tok.token_to_id(BOS))]
    )
    return tok


def save_tokenizer(tok, folder):
    os.makedirs(folder, exist_ok=True)
    tok.save(os.path.join(folder, "tokenizer.json"))
    write_json(
        os.path.join(folder, "tokenizer_config.json"),
        {
            "add_bos_token": True,
            "add_prefix_space": False,
            "bos_token": BOS,
            "chat_template": TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "eos_token": END,
            "model_max_length": 512,
            "pad_token": PAD,
            "tokenizer_class": "PreTrainedTokenizerFast",
            "unk_token": None,
        },
    )
    write_json(
        os.path.join(folder, "special_tokens_map.json"),
        {"bos_token": BOS, "eos_token": END, "pad_token": PAD},
    )


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, indent=2)
        f.write("\n")


# --- examples ---------------------------------------------------------------------------------------------------------


class Encoder:
    """Conversations to (ids, labels), exactly as the chat template writes them."""

    def __init__(self, tok):
        self.tok = tok
        self.ids = {s: tok.token_to_id(s) for s in SPECIALS}

    def text(self, s):
        return self.tok.encode(s, add_special_tokens=False).ids

    def chat(self, messages):
        ids, labels = [self.ids[BOS]], [-100]
        for role, content in messages:
            head = [self.ids[START]] + self.text(role + "\n")
            body = self.text(content) + [self.ids[END]]
            tail = self.text("\n")
            ids += head + body + tail
            labels += (
                [-100] * len(head)
                + (body if role == "assistant" else [-100] * len(body))
                + [-100] * len(tail)
            )
        return ids, labels

    def plain(self, s):
        ids = [self.ids[BOS]] + self.text(s) + [self.ids[EOS]]
        return ids, [-100] + ids[1:]


def examples(tok, seed, n, voice, control=0.0, plain=0.0):
    corpus, encoder, rng = Corpus(seed), Encoder(tok), random.Random(seed + 1)
    out = []
    while len(out) < n:
        if rng.random() < plain:
            ids, labels = encoder.plain(corpus.plain())
        else:
            ids, labels = encoder.chat(corpus.conversation(voice, control=rng.random() < control))
        if len(ids) <= MAX_TOKENS:
            out.append((ids, labels))
    return out


def batches(data, size, rng):
    """Batches of similar length in random order: few padding tokens, which are never looked at (causal, on the right)."""
    chunk = size * 32
    for start in range(0, len(data), chunk):
        part = sorted(data[start : start + chunk], key=lambda e: len(e[0]))
        groups = [part[k : k + size] for k in range(0, len(part), size)]
        rng.shuffle(groups)
        for group in groups:
            width = max(len(ids) for ids, _ in group)
            ids = torch.tensor([e[0] + [0] * (width - len(e[0])) for e in group])
            labels = torch.tensor([e[1] + [-100] * (width - len(e[1])) for e in group])
            yield ids, labels


# --- training ---------------------------------------------------------------------------------------------------------


def config(tok):
    ids = {s: tok.token_to_id(s) for s in SPECIALS}
    return LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=512,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=ids[BOS],
        eos_token_id=ids[END],
        pad_token_id=ids[PAD],
    )


def loss_of(model, ids, labels):
    """Cross entropy at the labelled positions; the big vocabulary product is done for these only."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    target = labels[:, 1:]
    keep = target != -100
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[keep]).float(), target[keep])


def fit(model, data, batch, lr, seed, log, decay=0.05):
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=lr, betas=(0.9, 0.98), weight_decay=decay, fused=True)
    rng = random.Random(seed)
    steps = math.ceil(len(data) / batch)
    warm = max(10, steps // 25)
    began, total = time.time(), 0.0
    model.train()
    for k, (ids, labels) in enumerate(batches(data, batch, rng)):
        rate = lr * min(1.0, (k + 1) / warm) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, k / steps)))
        for group in optimizer.param_groups:
            group["lr"] = max(rate, lr * 0.02)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(model, ids, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        total += loss.item()
        if (k + 1) % 100 == 0:
            log(f"  step {k + 1}/{steps} loss {total / 100:.4f} {time.time() - began:.0f} s")
            total = 0.0
    model.eval()


def round_to_bf16(model):
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.to(torch.bfloat16).to(torch.float32))


def train_base(tok, n, seed, log):
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config(tok))
    log(f"base: {sum(p.numel() for p in model.parameters())} parameters, {n} conversations")
    fit(model, examples(tok, seed + 10, n, "base", control=0.35, plain=0.05), 48, 2.5e-3, seed, log)
    round_to_bf16(model)
    return model


def save_base(model, folder):
    end, eos = model.config.eos_token_id, 2
    model.generation_config.update(
        bos_token_id=model.config.bos_token_id,
        eos_token_id=[end, eos],
        pad_token_id=model.config.pad_token_id,
        do_sample=False,
    )
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.generation_config = model.generation_config
    copy.to(torch.bfloat16).save_pretrained(folder)
    tidy(folder)


def load_base(folder):
    tok = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    return tok, LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)


def train_adapter(model, tok, voice, n, seed, log):
    """Trains one voice on the frozen base and returns the PEFT model; `unload()` gives the base back."""
    torch.manual_seed(seed)
    peft = get_peft_model(
        model,
        LoraConfig(
            r=8,
            lora_alpha=16,
            lora_dropout=0.0,
            bias="none",
            target_modules=MODULES,
            task_type="CAUSAL_LM",
            base_model_name_or_path="lorikeet-demo",
        ),
    )
    log(
        f"{voice}: {sum(p.numel() for p in peft.parameters() if p.requires_grad)} parameters, {n} conversations"
    )
    inner = peft.get_base_model()
    fit(inner, examples(tok, seed + 10, n, voice), 48, 3e-3, seed, log, decay=0.0)
    return peft


def save_adapter(peft, folder):
    for name, p in peft.named_parameters():
        if "lora_" in name:
            p.data = p.data.to(torch.bfloat16)
    peft.peft_config["default"].base_model_name_or_path = "lorikeet-demo"
    peft.save_pretrained(folder, save_embedding_layers=False)
    tidy(folder)
    path = os.path.join(folder, "adapter_config.json")
    with open(path, encoding="utf-8") as f:
        saved = json.load(f)
    saved["target_modules"] = MODULES  # a set in PEFT: its order changes from run to run
    write_json(path, saved)


def tidy(folder):
    """Removes PEFT's empty model card; weights are readable to all."""
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if name == "README.md":
            os.remove(path)
        elif name.endswith(".safetensors"):
            os.chmod(path, 0o644)
