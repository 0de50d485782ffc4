#!/usr/bin/env bash
# `make fuzz [SECONDS=60 SEED=1]`: files and requests from strangers, mutated, against builds with sanitizers.
set -euo pipefail
cd "$(dirname "$0")/../.."
make -s -j2 BUILD=asan build/asan/lorikeet build/asan/tests/golden/test_jinja_goldens build/asan/tests/sampling/grammar_walk
exec python3 tests/fuzz/mutate.py --seconds "${SECONDS_EACH:-60}" --seed "${SEED:-1}"
