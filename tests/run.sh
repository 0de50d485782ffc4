#!/usr/bin/env bash
# The whole test suite. Each part prints its own lines; a cmocka or other test program counts as its cases.
# Last line: N passed, N failed, N skipped
set -uo pipefail
cd "$(dirname "$0")/.."
jobs=$(nproc)
logs=build/test-logs counts=build/test-logs/counts
count() { echo "$1 $2 $3" >>$counts; } # a line for each part: they run beside each other

sh tests/deps.sh product tests || { echo "0 passed, 1 failed, 0 skipped"; exit 1; }
mkdir -p $logs
: >$counts

# beside PART…: in the background, as many at once as there are processors; what it says comes in one piece. A part that
# ends before it has counted is a failure.
beside() {
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
    {
        said=$("$@" 2>&1) || { said+=$'\n'"FAIL $*: ended early"; count 0 1 0; }
        printf '%s\n' "$said"
    } &
}

# build VARIANT TARGETS…: a failed build is one failure, and what depends on it fails with it
build() {
    local variant=$1
    shift
    if make -s -j"$jobs" BUILD="$variant" MAKE_DEPS_DONE=1 "$@" >$logs/build-"$variant".txt 2>&1; then
        echo "ok   build: $variant"
        count 1 0 0
    else
        tail -40 $logs/build-"$variant".txt
        echo "FAIL build: $variant"
        count 0 1 0
        return 1
    fi
}
export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0:allocator_may_return_null=1
export UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1:suppressions=$PWD/tests/tsan.supp
export OPENBLAS_NUM_THREADS=1

# unit VARIANT PROGRAM: cmocka's own lines are counted ("[       OK ]", "[  FAILED  ]", "[  SKIPPED ]")
unit() {
    local variant=$1 program=$2 name log ok bad skip
    name=${program##*/}
    log=$logs/$variant-$name.txt
    timeout 600 "$program" >"$log" 2>&1
    local rc=$?
    ok=$(grep -c '^\[       OK \]' "$log") bad=$(grep -cE '^\[  FAILED  \] [a-z_0-9]+$' "$log")
    skip=$(grep -cE '^\[  SKIPPED \] [a-z_0-9]+$' "$log")
    [ "$bad" -gt "$ok" ] && bad=$((bad / 2))
    if [ $rc -ne 0 ]; then
        [ "$bad" -eq 0 ] && bad=1
        grep -vE '^\[( RUN|       OK)' "$log" | tail -30
        echo "FAIL $variant $name (exit code $rc)"
    else
        [ $((ok + skip)) -eq 0 ] && bad=1 && echo "FAIL $variant $name ran nothing"
        [ "$skip" -gt 0 ] && grep -hm1 -iE '^skip' "$log"
        echo "ok   $variant $name: $ok passed, $skip skipped"
    fi
    count "$ok" "$bad" "$skip"
}

# script NAME COMMAND…: a suite whose last line is "N passed, N failed, N skipped"
script() {
    local name=$1 log last
    shift
    log=$logs/$name.txt
    timeout 900 "$@" >"$log" 2>&1
    local rc=$?
    last=$(grep -oE '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$log" | tail -1)
    if [ -z "$last" ]; then
        tail -30 "$log"
        echo "FAIL $name (exit code $rc, no result line)"
        count 0 1 0
        return
    fi
    read -r p _ f _ s _ <<<"${last//,/}"
    [ $rc -ne 0 ] && [ "$f" -eq 0 ] && f=1
    [ "$f" -gt 0 ] && grep -vE '^ok ' "$log" | tail -40
    [ "$s" -gt 0 ] && grep -iE '^skip' "$log" | head -5
    echo "$([ "$f" -gt 0 ] && echo FAIL || echo 'ok  ') $name: $last"
    count "$p" "$f" "$s"
}

# Unit tests are built with sanitizers only.
if build release all programs; then
    beside script check bash tests/check.sh quick
    beside script kernels build/release/tests/kernels/check
    wait
fi
programs() { # programs FOLDER: the test programs in it
    local t
    for t in "$1"/test_*; do
        case ${t##*/} in *.*) ;; *) [ -f "$t" ] && [ -x "$t" ] && echo "$t" ;; esac
    done
}
# Programs whose threads wait for each other by spinning run alone: two at once take longer than one after the other.
if build asan build/asan/lorikeet unit; then
    for t in $(programs build/asan/tests/unit); do beside unit asan "$t"; done
    wait
    for t in $(programs build/asan/tests/golden); do unit asan "$t"; done
fi
# Rooms with threads of their own, once more under ThreadSanitizer; test_engine_model's models are asked over HTTP there.
tsan=$(for t in tests/unit/test_{queue,team,engine,registry}*.c; do [ -f "$t" ] && echo "build/tsan/${t%.c}"; done | grep -v test_engine_model)
# shellcheck disable=SC2086
if build tsan build/tsan/lorikeet $tsan; then
    for t in $tsan; do unit tsan "$t"; done
fi
for s in tests/suites/*.sh; do beside script "$(basename "$s" .sh)" bash "$s"; done
wait

read -r passed failed skipped < <(awk '{p += $1; f += $2; s += $3} END {print p + 0, f + 0, s + 0}' $counts)
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
