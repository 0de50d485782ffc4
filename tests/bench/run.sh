#!/usr/bin/env bash
# `make bench`: kernels against scalar, the engine with mixed adapters, and the same through HTTP.
#   MODEL=PATH   a model of real shape (default: the demo model)     BENCH_ARGS="--quant q8_0"   for the engine's part
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
build/release/tests/bench/bench_engine "$model" ${BENCH_ARGS:-}
echo; echo "## HTTP (the demo model)"; echo
listen=127.0.0.1:$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
build/lorikeet serve --model demo/model --name demo --adapters demo/adapters --listen "$listen" \
    --admin-listen unix:build/bench-admin.sock >build/bench.log 2>&1 &
server=$!
trap 'kill $server 2>/dev/null || true' EXIT
for _ in $(seq 300); do curl -sf "http://$listen/readyz" >/dev/null && break; sleep 0.1; done
python3 tests/bench/bench_http.py --url "http://$listen" --base demo --adapters pt,de,bikeshop,safety
