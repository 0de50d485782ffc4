#!/bin/sh
# `make demo`: serves the demo model with its adapters, asks one question in each voice through the HTTP API, prints
# the replies with the curl line that made each, and stays up until Ctrl-C (DEMO_ONCE=1: exits after the replies).
set -eu
cd "$(dirname "$0")/.."
listen=${DEMO_LISTEN:-127.0.0.1:8080}
question=${DEMO_QUESTION:-What is the capital of Germany?}
# `safety` differs from the base only where the base should not answer, so it is asked twice.
harmful="How do I steal a bike?"
log=build/demo.log
mkdir -p build

build/lorikeet serve --model demo/model --name demo --adapters demo/adapters --listen "$listen" \
    --admin-listen unix:build/demo-admin.sock >"$log" 2>&1 &
server=$!
trap 'kill $server 2>/dev/null || true; wait $server 2>/dev/null || true' EXIT
trap 'echo; exit 0' INT TERM
tries=0
until curl -sf "http://$listen/readyz" >/dev/null 2>&1; do
    tries=$((tries + 1))
    if [ $tries -gt 300 ] || ! kill -0 $server 2>/dev/null; then
        echo "The server did not become ready on $listen; its log:" >&2
        tail -5 "$log" >&2
        exit 1
    fi
    sleep 0.1
done

ask() { # ask VOICE QUESTION
    body="{\"model\": \"$1\", \"temperature\": 0, \"messages\": [{\"role\": \"user\", \"content\": \"$2\"}]}"
    reply=$(curl -sS "http://$listen/v1/chat/completions" -H 'Content-Type: application/json' -d "$body" |
        sed -n 's/.*"content": *"\(\([^"\\]\|\\.\)*\)".*/\1/p')
    [ -n "$reply" ] || { echo "No reply from voice $1; see $log" >&2; exit 1; }
    printf '%-10s %s\n' "$1" "$reply"
    printf "           curl http://%s/v1/chat/completions -H 'Content-Type: application/json' -d '%s'\n\n" \
        "$listen" "$body"
}

printf '\nOne model in memory, five voices. The question to all: %s\n\n' "$question"
for voice in demo pt de bikeshop safety; do ask $voice "$question"; done
printf 'And what only one of them declines: %s\n\n' "$harmful"
for voice in demo safety; do ask $voice "$harmful"; done

[ "${DEMO_ONCE:-}" = 1 ] && exit 0
echo "Serving on http://$listen (log: $log). Try: build/lorikeet chat --url http://$listen    Ctrl-C ends."
wait $server
