"""One server for most tests: the tiny llama with PEFT adapters, and voices whose every token shows who speaks."""
import os, signal, sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import matrix
from harness import DATA, Server

LLAMA = os.path.join(DATA, "models", "llama", "f32")
ADAPTERS = os.path.join(DATA, "adapters", "llama")
VOICES = {v: os.path.join(ADAPTERS, v) for v in ("qv_r4", "all_r8_bf16", "rslora_r8", "patterns", "head_r4")}

# A shell ignores it for what runs in the background, and programs that are started from there would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def server():
    with Server(LLAMA, {**VOICES, "shows_A": os.path.join(ADAPTERS, "shows_A")},
                ["--adapter-root", ADAPTERS, "--threads", "2"], name="tiny") as s:
        yield s


@pytest.fixture(scope="session")
def client(server):
    import openai
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: "test_clients_matrix.py" in item.nodeid)  # it looks at the others' outcomes


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    matrix.note_outcome(item, (yield).get_result())
