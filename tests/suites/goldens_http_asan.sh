#!/usr/bin/env bash
# The small set again on the server built with AddressSanitizer and UndefinedBehaviorSanitizer.
exec env LORIKEET="$PWD/build/asan/lorikeet" python3 tests/golden/http_goldens.py --quick
