#!/usr/bin/env bash
# `make bench`: kernels against their peak and scalar, the engine, the server under load, memory, start-up, growth, swaps.
#   MODELS="a.gguf b.gguf"   models of real shape (default: the demo model, which has no limits to show)
#   PARTS="kernels step share load …"   some of it alone: kernels tokenizer overhead http swap zipf, and bench_own.py's parts
#   TOKENIZER=tokenizer.json TEXTS="FILE…"   the tokenizer's part (default: the 128k vocabulary beside the repository)
#   URL=http://…  BASE=name ADAPTERS=a,b,c    another OpenAI-style server instead of ours, HTTP part only
#   BENCH_WRAP="…"   a command that keeps others away from the pieces of bench_own.py
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ -n "${URL:-}" ]; then
    exec python3 tests/bench/bench_http.py --url "$URL" --base "$BASE" --adapters "$ADAPTERS"
fi
own="step rows ranks adapters context threads share load prefix many start"
parts=${PARTS:-kernels ${MODELS:+$own} tokenizer overhead http}
echo "$(date -u +%Y-%m-%d), $(git rev-parse --short HEAD 2>/dev/null || echo 'no commit'), $(nproc) cores: $(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2-)"
kernels() {
    echo; echo "## Kernels"; echo
    build/release/tests/bench/limits
    build/release/tests/kernels/check --bench
}
overhead() {
    echo; echo "## Keys, limits, usage"; echo
    python3 tests/bench/bench_overhead.py
}
tokenizer() {
    local vocabulary=${TOKENIZER:-} packed=../shared/goldens/tokenizer_files/llama3_1/tokenizer.json.xz
    if [ -z "$vocabulary" ] && [ -f "$packed" ]; then
        vocabulary=build/bench-tokenizer.json
        xz -dc "$packed" >"$vocabulary"
    fi
    echo; echo "## Tokenizer (one core)"; echo
    [ -n "$vocabulary" ] || { echo "no vocabulary: TOKENIZER=tokenizer.json names one"; return 0; }
    cat README.md docs/*.md $(find /usr/share/common-licenses -type f 2>/dev/null | sort) >build/bench-english.txt
    cat core/*/*.c server/*.c tests/*/*.py >build/bench-code.txt
    # shellcheck disable=SC2086
    build/release/tests/bench/bench_tokenizer "$vocabulary" ${TEXTS:-build/bench-english.txt build/bench-code.txt}
}
http() {
    echo; echo "## HTTP (the demo model)"; echo
    listen=127.0.0.1:$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    build/lorikeet serve --model demo/model --name demo --adapters demo/adapters --listen "$listen" \
        --admin-listen unix:build/bench-admin.sock >build/bench.log 2>&1 &
    server=$!
    trap 'kill $server 2>/dev/null || true' EXIT
    for _ in $(seq 300); do curl -sf "http://$listen/readyz" >/dev/null && break; sleep 0.1; done
    python3 tests/bench/bench_http.py --url "http://$listen" --base demo --adapters pt,de,bikeshop,safety
    kill $server
}
chosen=""
for part in $parts; do
    case $part in
    kernels | tokenizer | overhead | http) $part ;;
    swap | zipf) echo; echo "## $part"; echo; python3 tests/bench/bench_$part.py ;;
    *) chosen="$chosen $part" ;;
    esac
done
if [ -n "$chosen" ]; then
    : "${MODELS:?these parts need a model of real shape: $chosen}"
    python3 tests/bench/bench_own.py --models "$MODELS" --parts "$chosen"
    python3 tests/bench/report.py
fi
