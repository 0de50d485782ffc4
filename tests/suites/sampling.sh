#!/usr/bin/env bash
# Draws against the NumPy model (chi-square), seeds and log-probabilities over HTTP, random walks through grammars.
set -uo pipefail
. tests/venv.sh
passed=0 failed=0 skipped=0
for part in chi_square http_sampling grammar_walks; do
    out=$(timeout 400 $python tests/sampling/$part.py 2>&1)
    rc=$?
    echo "$out"
    read -r p _ f _ s _ < <(echo "$out" | tail -1 | grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' | tr -d ,)
    [ $rc -ne 0 ] && [ "${f:-0}" -eq 0 ] && f=1
    passed=$((passed + ${p:-0})) failed=$((failed + ${f:-1})) skipped=$((skipped + ${s:-0}))
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
