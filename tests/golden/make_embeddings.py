#!/usr/bin/env python3
"""Makes tests/golden/data/embeddings.json: what transformers + PEFT say are the final hidden states of a few prompts on
the tiny models: their mean and the last one, of length 1.

    pip install -r tests/golden/requirements.txt && python3 tests/golden/make_embeddings.py

A case: {"family", "adapter" (or null), "ids", "mean", "last"}. Layouts are make_goldens.py's, which makes the models.
"""
import copy, json, os, random, warnings
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, logging

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")
VOICES = {"llama": [None, "qv_r4", "all_r8_bf16", "mts_norms_r2", "embed_r3"], "gemma3": [None, "rslora_r8", "tokens_r2"],
          "gpt2": [None, "all_r3_bf16"]}
LENGTHS = (1, 5, 41)


def unit(v):
    v = v.double()
    return [round(x, 7) for x in (v / v.norm()).tolist()]


def main():
    logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    cases, rng = [], random.Random(7)
    for family, adapters in VOICES.items():
        base = AutoModelForCausalLM.from_pretrained(os.path.join(DATA, "models", family, "f32"), dtype=torch.float32).eval()
        prompts = [[rng.randrange(6, 250) for _ in range(n)] for n in LENGTHS]
        for adapter in adapters:
            model = base
            if adapter:
                folder = os.path.join(DATA, "adapters", family, adapter)
                model = PeftModel.from_pretrained(copy.deepcopy(base), folder).float().eval()
            for ids in prompts:
                with torch.no_grad():
                    h = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0]
                cases.append({"family": family, "adapter": adapter, "ids": ids, "mean": unit(h.double().mean(0)), "last": unit(h[-1])})
    with open(os.path.join(DATA, "embeddings.json"), "w") as f:
        f.write("[" + ",\n".join(json.dumps(c) for c in cases) + "]\n")


if __name__ == "__main__":
    main()
