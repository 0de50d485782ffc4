#!/usr/bin/env bash
# Kills in the middle of changes: what was acknowledged is there again, and until the kill no memory was misused. `make stress`
# does forty on the server as it is shipped.
exec env LORIKEET="$PWD/build/asan/lorikeet" python3 tests/stress/kill_loop.py --kills 5
