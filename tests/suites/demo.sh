#!/usr/bin/env bash
# `make demo` as a user runs it, on a free port; then the held-out prompts of the demo through the API.
set -uo pipefail
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
out=$(DEMO_ONCE=1 DEMO_LISTEN=127.0.0.1:$port timeout 120 sh demo/run.sh 2>&1)
rc=$?
echo "$out"
passed=0 failed=0
expect() { if echo "$out" | grep -q "$1"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL: no \"$1\" in what the demo printed"; fi; }
[ $rc -eq 0 ] && passed=1 || { failed=1; echo "FAIL: exit code $rc"; }
for voice in demo pt de bikeshop safety; do expect "^$voice  *[A-Z]"; done
expect "curl http://127.0.0.1:$port"
read -r p _ f _ < <(python3 tests/demo/check_voices.py | tail -1 | tr -d ,)
echo "$((passed + ${p:-0})) passed, $((failed + ${f:-1})) failed, 0 skipped"
[ $((failed + ${f:-1})) -eq 0 ]
