#!/usr/bin/env bash
# `make stress`: the storm of reloads for a minute, on the kept state too, and under ThreadSanitizer for 20 s; then the kills, and
# everybody at once, with memory checked and for races.
set -uo pipefail
cd "$(dirname "$0")/../.."
export OPENBLAS_NUM_THREADS=1
export TSAN_OPTIONS=halt_on_error=1:suppressions=$PWD/tests/tsan.supp
failed=0
part() {
    echo "== $*"
    "$@" || failed=$((failed + 1))
}
make -s BUILD=tsan build/tsan/lorikeet || exit 1
make -s BUILD=asan build/asan/lorikeet || exit 1
part python3 tests/stress/storm.py --seconds "${SECONDS_EACH:-60}"
part python3 tests/stress/storm.py --seconds "${SECONDS_EACH:-60}" --state
part env LORIKEET=build/tsan/lorikeet python3 tests/stress/storm.py --seconds 20 --no-memory --no-effect-test
[ -f tests/stress/kill_loop.py ] && part python3 tests/stress/kill_loop.py
for build in asan tsan; do
    part env LORIKEET=build/$build/lorikeet python3 tests/stress/chaos.py --seconds "${SECONDS_EACH:-60}"
    part env LORIKEET=build/$build/lorikeet python3 tests/stress/chaos.py --seconds "${SECONDS_EACH:-60}" --state --tenants
done
[ $failed -eq 0 ]
