#!/usr/bin/env bash
# `make test-goldens`: everything in ../shared/goldens (and in the folders that GOLDENS names, colon separated) against
# the release build: models and adapters, quantised types, tokenizers, chat templates through the C tests; then every
# family with all its adapters over HTTP, alone and in a crowd, with ../shared/tools/golden_client.py.
# Last line: N passed, N failed, N skipped
set -uo pipefail
cd "$(dirname "$0")/../.."
passed=0 failed=0 skipped=0
shared=../shared/goldens client=../shared/tools/golden_client.py
logs=build/test-logs
tests="test_model_goldens test_model_properties test_adapters test_dequant test_tokenizer_goldens test_chat_goldens test_jinja_goldens"
mkdir -p $logs
count() { passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3)); }

if ! make -s -j"$(nproc)" all $(printf 'build/release/tests/golden/%s ' $tests); then
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
fi
if [ ! -d $shared ]; then
    echo "skip: $shared is not beside the repository; only the project's own goldens are run"
    skipped=1
fi

# cmocka's lines: "[       OK ]", "[  FAILED  ]" (once where it fails, once in the list at the end), "[  SKIPPED ]"
for t in $tests; do
    log=$logs/goldens-$t.txt
    build/release/tests/golden/$t >$log 2>&1
    rc=$?
    ok=$(grep -c '^\[       OK \]' $log) skip=$(grep -cE '^\[  SKIPPED \] ' $log)
    bad=$(grep -E '^\[  FAILED  \] ' $log | sort -u | wc -l)
    [ $rc -ne 0 ] && [ "$bad" -eq 0 ] && bad=1
    [ $rc -ne 0 ] && grep -vE '^\[( RUN|       OK)' $log | tail -60
    [ "$skip" -gt 0 ] && skip=$(grep -E '^\[  SKIPPED \] ' $log | sort -u | wc -l) && grep -hiE '^skip' $log | sort -u | head -5
    echo "$([ "$bad" -gt 0 ] && echo FAIL || echo 'ok  ') $t: $ok passed, $bad failed, $skip skipped"
    count "$ok" "$bad" "$skip"
done

http() { # http FOLDER
    local log=$logs/goldens-http.txt last
    python3 $client --bin build/lorikeet --goldens "$1" >$log 2>&1
    last=$(grep -oE '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' $log | tail -1)
    [ -n "$last" ] || { tail -20 $log; last="0 passed, 1 failed, 0 skipped"; }
    grep '^FAIL' $log | head -40
    read -r p _ f _ s _ <<<"${last//,/}"
    echo "$([ "$f" -gt 0 ] && echo FAIL || echo 'ok  ') over HTTP, $1: $last"
    count "$p" "$f" "$s"
}
if [ -f $client ]; then
    for folder in $shared ${GOLDENS:+${GOLDENS//:/ }}; do [ -d "$folder" ] && http "$folder"; done
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
