#!/usr/bin/env bash
# The HTTP API with real clients (pytest, the openai package). Python packages go into build/venv, once.
set -uo pipefail
venv=build/venv
stamp=$venv/$(sha256sum tests/api/requirements.txt | cut -c1-16)
if [ ! -f "$stamp" ]; then
    echo "Installing into $venv: $(tr '\n' ' ' <tests/api/requirements.txt)"
    python3 -m venv --clear $venv && $venv/bin/pip install --quiet -r tests/api/requirements.txt && touch "$stamp" ||
        { echo "pip could not install what tests/api needs"; echo "0 passed, 1 failed, 0 skipped"; exit 1; }
fi
out=$(timeout 800 $venv/bin/python -m pytest -q -rsfE --tb=short -p no:cacheprovider tests/api 2>&1)
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
