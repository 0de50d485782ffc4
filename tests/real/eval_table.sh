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
row() { # row WEIGHTS ADAPTER MERGED: ADAPTER and MERGED may be "-"
    local more=()
    [ "$2" = - ] || more+=(--adapter "$adapter")
    [ "$3" = - ] || more+=(--merged "$3")
    $lorikeet eval --model $model --quiet --text "$text" --parse-special --context 512 --quant "$1" \
        --against-quant bf16 --json "${more[@]}" | python3 -c '
import json, sys
r = json.load(sys.stdin)
weights, voice, merged = sys.argv[1:]
m = r.get("merged")
print("|", {"auto": "Q4_K_M"}.get(weights, weights), "|", voice, "|",
      {"-": "-" if voice == "-" else "unmerged"}.get(merged, "in " + merged), "|", "%.3f" % r["perplexity"], "|",
      "%.2g" % r["kl"]["mean"], "|", "%.2g" % r["kl"]["p99"], "|", "%.1f %%" % (100 * r["same_top"]["mean"]), "|",
      "%.2g %%" % (100 * m["error_norm"] / m["delta_norm"]) if m else "-", "|", flush=True)' "$@"
}
name=$(basename "$adapter")
echo "| weights | adapter | merged | perplexity | KL mean | KL 99 % | same top | rounding / delta |"
echo "|---|---|---|---|---|---|---|---|"
for t in bf16 q8_0 q4_0 auto; do row $t - -; done
for t in bf16 auto q8_0 q4_0; do
    row $t "$name" -
    row $t "$name" bf16
    row $t "$name" q8_0
done
