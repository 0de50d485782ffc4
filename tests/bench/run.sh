#!/usr/bin/env bash
# `make bench`: kernels against scalar, the engine with mixed adapters, and the same through HTTP.
#   MODEL=PATH   a model of real shape (default: the demo model)     BENCH_ARGS="--quant q8_0"   for the engine's part
#   TOKENIZER=tokenizer.json TEXTS="FILE…"   the tokenizer's part (default: the 128k vocabulary beside the repository)
#   URL=http://…  BASE=name ADAPTERS=a,b,c    another OpenAI-style server instead of ours, HTTP part only
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ -n "${URL:-}" ]; then
    exec python3 tests/bench/bench_http.py --url "$URL" --base "$BASE" --adapters "$ADAPTERS"
fi
model=${MODEL:-demo/model}
echo "$(date -u +%Y-%m-%d), $(git rev-parse --short HEAD 2>/dev/null || echo 'no commit'), $(nproc) cores: $(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2-)"
echo; echo "## Kernels"; echo
build/release/tests/kernels/check --bench
echo; echo "## Engine"; echo
# shellcheck disable=SC2086
build/release/tests/bench/bench_step "$model" ${BENCH_ARGS:-} prefill:256 prefill:16:16 decode:1:0:48 decode:1:1:48 decode:8:0:48 \
    decode:8:8:48 decode:16:0:48 decode:16:16:48
vocabulary=${TOKENIZER:-}
packed=../shared/goldens/tokenizer_files/llama3_1/tokenizer.json.xz
if [ -z "$vocabulary" ] && [ -f "$packed" ]; then
    vocabulary=build/bench-tokenizer.json
    xz -dc "$packed" >"$vocabulary"
fi
echo; echo "## Tokenizer (one core)"; echo
if [ -n "$vocabulary" ]; then
    cat README.md docs/*.md $(find /usr/share/common-licenses -type f 2>/dev/null | sort) >build/bench-english.txt
    cat core/*/*.c server/*.c tests/*/*.py >build/bench-code.txt
    build/release/tests/bench/bench_tokenizer "$vocabulary" ${TEXTS:-build/bench-english.txt build/bench-code.txt}
else
    echo "no vocabulary: TOKENIZER=tokenizer.json names one"
fi
echo; echo "## HTTP (the demo model)"; echo
listen=127.0.0.1:$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
build/lorikeet serve --model demo/model --name demo --adapters demo/adapters --listen "$listen" \
    --admin-listen unix:build/bench-admin.sock >build/bench.log 2>&1 &
server=$!
trap 'kill $server 2>/dev/null || true' EXIT
for _ in $(seq 300); do curl -sf "http://$listen/readyz" >/dev/null && break; sleep 0.1; done
python3 tests/bench/bench_http.py --url "http://$listen" --base demo --adapters pt,de,bikeshop,safety
