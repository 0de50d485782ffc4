#!/usr/bin/env bash
# Everything about the sources that needs no run: layers, foreign headers, doors alone, symbols, format, tidy.
# Warnings are errors in every build, so the compiler's part is done by building.
set -uo pipefail
cd "$(dirname "$0")/.."
failed=0 passed=0
step() { # step NAME COMMAND...
    local name=$1 out
    shift
    if out=$("$@" 2>&1); then echo "ok   check: $name"; passed=$((passed + 1)); else echo "$out" | head -60; echo "FAIL check: $name"; failed=$((failed + 1)); fi
}
doors_alone() {
    local bad=0 d
    for d in $(find include -name '*.h'); do
        gcc -std=gnu11 -D_GNU_SOURCE -Wall -Wextra -Wshadow -Werror -Iinclude -fsyntax-only -x c "$d" || bad=1
    done
    return $bad
}
symbols() { # core knows no HTTP, no loop, no adapters
    local lib=build/release/libcore.a
    [ -f $lib ] || make -s $lib || return 1
    ! nm -u $lib | grep -E '^ +U (MHD_|uv_|adapter_|registry_|server_)'
}
sources() { git ls-files -- 'core/*.[ch]' 'adapters/*.[ch]' 'server/*.[ch]' 'include/*.h' 'tests/*.[ch]'; }
format() { sources | xargs clang-format-14 --dry-run -Werror; }
tidy() {
    local inc
    inc="-std=gnu11 -D_GNU_SOURCE -DLORIKEET_VERSION='\"0\"' -Iinclude $(pkg-config --cflags libmicrohttpd jansson libuv libcyaml gnutls libexttextcat)"
    git ls-files -- 'core/*.c' 'adapters/*.c' 'server/*.c' | grep -vE '_(avx2|avxvnni|avx512|neon)\.c$' |
        xargs -P 2 -n 8 sh -c 'clang-tidy-14 --quiet --warnings-as-errors="*" "$@" -- '"$inc"' 2>/dev/null' sh
}
no_globals() { # mutable file-scope data outside main: symbols in .data and .bss (constant tables are in .data.rel.ro)
    local out
    out=$(for l in core adapters server; do objdump -t build/release/lib$l.a 2>/dev/null; done |
        awk '$3 == "O" && $4 ~ /^\.(data|bss)$/ {print $NF}
             $2 == "O" && $3 ~ /^\.(data|bss)$/ {print $NF}' | grep -vE '^nothing$' | sort -u)
    [ -z "$out" ] || { echo "mutable globals: $out"; return 1; }
}
step "layers and foreign headers" sh tests/check_layers.sh
step "each door compiles alone" doors_alone
step "core's undefined symbols" symbols
step "no mutable globals" no_globals
step "clang-format" format
[ "${1:-}" = quick ] || step "clang-tidy" tidy # minutes: `make check` does it, `make test` leaves it out
echo "$passed passed, $failed failed, 0 skipped"
[ $failed -eq 0 ]
