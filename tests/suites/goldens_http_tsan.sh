#!/usr/bin/env bash
# And on the one built with ThreadSanitizer.
exec env LORIKEET="$PWD/build/tsan/lorikeet" python3 tests/golden/http_goldens.py --quick
