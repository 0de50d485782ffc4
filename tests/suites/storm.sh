#!/usr/bin/env bash
# Reloads under streams, for seconds (`make stress` has minutes): on the release build, and under ThreadSanitizer.
set -uo pipefail
passed=0 failed=0
storm() {
    out=$(timeout 120 python3 tests/stress/storm.py "$@" 2>&1)
    rc=$?
    echo "$out"
    if [ $rc -eq 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}
storm --seconds 7
LORIKEET=build/tsan/lorikeet storm --seconds 5 --no-memory --no-effect-test
echo "$passed passed, $failed failed, 0 skipped"
[ $failed -eq 0 ]
