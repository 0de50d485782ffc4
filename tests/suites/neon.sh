#!/usr/bin/env bash
# The NEON kernels, cross-compiled and run under an emulator: the same checks as on this machine.
# Skips where the cross compiler or the emulator is missing, or where the machine is an ARM itself.
set -uo pipefail
cd "$(dirname "$0")/../.."
cc=aarch64-linux-gnu-gcc out=build/neon
if [ "$(uname -m)" = aarch64 ] || ! command -v $cc >/dev/null || ! command -v qemu-aarch64 >/dev/null; then
    echo "skipped: needs $cc and qemu-aarch64 on another machine than an ARM"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
fi
mkdir -p $out
warn="-Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef -Wpointer-arith -Wcast-qual -Werror"
compile() {
    local o=$out/${1##*/} isa=
    o=${o%.c}.o
    case $1 in *_neon.c) isa=-march=armv8.2-a+dotprod+fp16 ;; esac
    [ "$o" -nt "$1" ] && [ -z "$(find core/kernels include tests/kernels -name '*.h' -newer "$o")" ] && return
    # shellcheck disable=SC2086
    $cc -std=gnu11 -D_GNU_SOURCE -O2 -ffp-contract=off $warn -Wno-format-truncation -Iinclude -Icore/kernels $isa -c "$1" -o "$o"
}
for f in core/kernels/*.c core/base/{dtype,error,mem}.c tests/kernels/check.c; do
    case $f in *_avx2.c | *_avxvnni.c | *_avx512.c | *_blas.c) continue ;; esac
    compile "$f" || { echo "FAIL neon: $f does not compile"; echo "0 passed, 1 failed, 0 skipped"; exit 1; }
done
$cc -static $out/*.o -o $out/check -lm && timeout 800 qemu-aarch64 $out/check
