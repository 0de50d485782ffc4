#!/usr/bin/env bash
# A short, fixed set of the simulation's seeds, under AddressSanitizer. `make sim` runs millions of steps.
set -uo pipefail
make -s BUILD=asan MAKE_DEPS_DONE=1 build/asan/tests/sim/sim || { echo "0 passed, 1 failed, 0 skipped"; exit 1; }
exec build/asan/tests/sim/sim pinned
