# Sourced: $python is the tests' own Python with what tests/api/requirements.txt names, in build/venv. Made once.
venv=build/venv
stamp=$venv/$(sha256sum tests/api/requirements.txt | cut -c1-16)
python=$venv/bin/python
install_packages() { # suites run beside each other: the first installs, the others wait for it
    flock 8
    [ -f "$stamp" ] && return
    echo "Installing into $venv: $(tr '\n' ' ' <tests/api/requirements.txt)"
    python3 -m venv --clear $venv && $venv/bin/pip install --quiet -r tests/api/requirements.txt && touch "$stamp"
}
mkdir -p build
install_packages 8>build/venv.lock || { echo "pip could not install what the tests need"; echo "0 passed, 1 failed, 0 skipped"; exit 1; }
