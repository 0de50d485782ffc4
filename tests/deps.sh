#!/bin/sh
# Installs what is missing, after saying what: deps.sh product [tests]. Silent when everything is there.
set -eu
product="build-essential pkg-config libmicrohttpd-dev libjansson-dev libuv1-dev libopenblas-dev libpcre2-dev
libutf8proc-dev libcyaml-dev libcurl4-openssl-dev libgnutls28-dev libsqlite3-dev libxxhash-dev
libexttextcat-dev libexttextcat-data curl"
tests="libcmocka-dev python3-venv python3-pip clang-format-14 clang-tidy-14 xz-utils gcc-aarch64-linux-gnu
libc6-dev-arm64-cross qemu-user openssl"
missing=
for group in "$@"; do
    eval "list=\$$group"
    for p in $list; do
        dpkg-query -W -f '${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed || missing="$missing $p"
    done
done
[ -z "$missing" ] && exit 0
echo "Missing Debian packages:$missing" >&2
command -v apt-get >/dev/null || { echo "This is no Debian: install their equivalents yourself." >&2; exit 1; }
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
echo "Installing them: $sudo apt-get install -y$missing" >&2
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
$sudo apt-get install -y --no-install-recommends $missing >/dev/null 2>&1 ||
    { $sudo apt-get update >/dev/null && $sudo apt-get install -y --no-install-recommends $missing >/dev/null; } ||
    { echo "apt could not install them: see above, then run 'make deps' again." >&2; exit 1; }
