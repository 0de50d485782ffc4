#!/usr/bin/env bash
# `make test-real`: the golden prompts on the real model with the real trained adapters (needs ../shared).
set -euo pipefail
cd "$(dirname "$0")/../.."
exec python3 tests/real/test_real.py
