#!/usr/bin/env bash
# The tables of docs/performance.md in one go, what matters most first; about 25 minutes on two cores of 2021.
#   LLAMA_BIN=FOLDER MODELS=FOLDER [MINUTES=25] [RESULTS=build/bench] [DOC=docs/performance.md] [BENCH_WRAP="…"] bash tests/bench/table.sh
# MODELS holds llama1b-{q8_0,q4_0,q4_k_m,bf16}.gguf, qwen0.5b-q8_0.gguf, gemma3-270m-q4_k_m.gguf (../shared/bench/make_model.py,
# make real-model) and loras-llama1b, loras-qwen0.5b, loras-gemma (32 each of rank 16; made where they lack). What is there is taken.
# A run that was cut short, or ran out of MINUTES, goes on when the same command is given again; RESULTS/*.jsonl hold what it has.
# No piece begins after MINUTES; the longest one takes four. Pieces that others disturbed are made again once.
set -uo pipefail
cd "$(dirname "$0")/../.."
: "${LLAMA_BIN:?the folder with llama-server, llama-bench and llama-batched-bench}" "${MODELS:?the folder with the models}"
results=${RESULTS:-build/bench} doc=${DOC:-docs/performance.md} end=$((SECONDS + 60 * ${MINUTES:-25}))
models() { # those of the named ones that are there
    local name
    for name in "$@"; do [ -f "$MODELS/$name.gguf" ] && printf '%s ' "$MODELS/$name.gguf"; done
}
left() { awk "BEGIN { print ($end - $SECONDS) / 60 }"; }
peer() { # peer PARTS MODEL...
    local parts=$1
    shift
    [ $SECONDS -lt $end ] || return 0
    python3 tests/bench/bench_peer.py --llama-bin "$LLAMA_BIN" --models "$(models "$@")" --parts "$parts" --results "$results/peer.jsonl" \
        --minutes "$(left)"
}
own() {
    local parts=$1
    shift
    [ $SECONDS -lt $end ] || return 0
    python3 tests/bench/bench_own.py --models "$(models "$@")" --parts "$parts" --results "$results/own.jsonl" --minutes "$(left)"
}
one_b="llama1b-q8_0 llama1b-q4_0"
# shellcheck disable=SC2086
{
    peer "limits=1" llama1b-q8_0
    peer "single=1" $one_b llama1b-q4_k_m gemma3-270m-q4_k_m
    peer "crowd8=1" $one_b qwen0.5b-q8_0 gemma3-270m-q4_k_m
    peer "batch=1" $one_b
    own "step share prefix start" llama1b-q8_0
    peer "single=1" llama1b-bf16
    peer "crowd16=1" llama1b-q4_0 qwen0.5b-q8_0 llama1b-q8_0
    own "many" qwen0.5b-q8_0
    peer "crowd8-long=1" llama1b-q4_0 llama1b-q8_0
    peer "single=2" $one_b llama1b-q4_k_m gemma3-270m-q4_k_m
    peer "limits=2" llama1b-q8_0
    own "rows ranks context threads" qwen0.5b-q8_0
    peer "single=3" gemma3-270m-q4_k_m llama1b-q4_0 llama1b-q4_k_m llama1b-q8_0
    own "adapters load" qwen0.5b-q8_0
}
mkdir -p docs/performance
python3 tests/bench/report.py --peer "$results/peer.jsonl" --own "$results/own.jsonl" --out "${OUT:-docs/performance}" --doc "$doc"
