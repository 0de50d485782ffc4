#!/usr/bin/env bash
# Operators, tenants and clients, all at once on few names, with memory checked. `make stress` does it for longer, for races too.
exec env LORIKEET="$PWD/build/asan/lorikeet" python3 tests/stress/chaos.py --seconds 10 --round 5 --state --tenants
