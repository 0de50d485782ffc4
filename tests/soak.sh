#!/usr/bin/env bash
# `make soak [MINUTES=10]`: streams, disconnects and adapter reloads at once, for a while; memory and answers watched.
set -euo pipefail
cd "$(dirname "$0")/.."
exec python3 tests/soak.py --minutes "${MINUTES:-10}"
