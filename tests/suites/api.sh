#!/usr/bin/env bash
# The HTTP API with real clients (pytest, the openai package). Python packages go into build/venv, once.
set -uo pipefail
. tests/venv.sh
out=$(timeout 800 $python -m pytest -q -rsfE --tb=short -p no:cacheprovider tests/api 2>&1)
rc=$?
echo "$out" | tail -60
number() { # of tests that pytest's last line counts as $1
    local n
    n=$(echo "$out" | tail -1 | grep -oE "[0-9]+ $1" | head -1)
    echo "${n%% *}" | grep . || echo 0
}
failed=$(($(number failed) + $(number error)))
[ $rc -ne 0 ] && [ "$failed" -eq 0 ] && failed=1
echo "$(number passed) passed, $failed failed, $(number skipped) skipped"
exit $rc
