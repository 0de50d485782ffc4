#!/usr/bin/env bash
# Kills in the middle of changes: what was acknowledged is there again. `make stress` does forty.
exec python3 tests/stress/kill_loop.py --kills 5
