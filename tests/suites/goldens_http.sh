#!/usr/bin/env bash
# PEFT's answers over HTTP: alone, in a crowd, other threads, other chunks.
exec python3 tests/golden/http_goldens.py
