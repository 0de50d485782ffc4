#!/usr/bin/env bash
# The table of docs/EVAL.md: gemma-3-270m in several weight types, without and with an adapter, unmerged and merged,
# each against bf16 weights with the adapter unmerged. 16 runs, minutes on two cores. ADAPTER is the folder of one of
# the trained adapters, TEXT a text in its manner of speaking.
set -euo pipefail
cd "$(dirname "$0")/../.."
model=build/real/gemma-3-270m-q4_k_m.gguf
lorikeet=${LORIKEET:-build/lorikeet}
text=${TEXT:-tests/real/eval_de.txt}
adapter=${ADAPTER:-../shared/adapters/de}
name=$(basename "$adapter")
row() { # row WEIGHTS ADAPTER MERGED: ADAPTER and MERGED may be "-"
    local more=() reference=build/real/$2.lp
    [ "$2" = - ] || more+=(--adapter "$adapter")
    [ "$3" = - ] || more+=(--merged "$3")
    if [ "$1$3" = bf16- ]; then more+=(--save-logits "$reference"); else more+=(--against "$reference"); fi
    $lorikeet eval --model $model --quiet --text "$text" --parse-special --context 512 --quant "$1" --json "${more[@]}" |
        python3 -c '
import json, sys
r = json.load(sys.stdin)
weights, voice, merged = sys.argv[1:]
m, kl = r.get("merged"), r.get("kl")
print("|", {"auto": "Q4_K_M"}.get(weights, weights), "|", voice, "|",
      {"-": "-" if voice == "-" else "unmerged"}.get(merged, "in " + merged), "|", "%.3f" % r["perplexity"], "|",
      "%.2g | %.2g | %.1f %%" % (kl["mean"], kl["p99"], 100 * r["same_top"]["mean"]) if kl else "reference | |", "|",
      "%.2g %%" % (100 * m["error_norm"] / m["delta_norm"]) if m else "", "|", flush=True)' "$@"
}
echo "| weights | adapter | merged | perplexity | KL mean | KL 99 % | same top | rounding / delta |"
echo "|---|---|---|---|---|---|---|---|"
for voice in "$name" -; do
    for t in bf16 auto q8_0 q4_0; do
        row $t "$voice" -
        [ "$voice" = - ] || for m in q8_0 bf16; do row $t "$voice" $m; done
    done
done
rm -f "build/real/$name.lp" build/real/-.lp
