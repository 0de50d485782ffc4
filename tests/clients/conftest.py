"""A parrot (tests/api/parrot.py) for clients that want sensible answers, beside tiny llama voices."""
import os, sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE), os.path.join(os.path.dirname(HERE), "api")]
import matrix
import parrot
from harness import DATA, Server

LLAMA = os.path.join(DATA, "models", "llama", "f32")
ADAPTERS = os.path.join(DATA, "adapters", "llama")
TEXTS = {
    "plain": "Good morning!  I am a parrot. ",
    "weather": '<tool_call>\n{"name": "get_weather", "arguments": {"city": "São Paulo", "days": 2}}\n</tool_call>',
    "think": "<think>\nThe bird wonders.\n</think>\n\nSo it says yes.",
    "": "I am still wondering.\n</think>\nDone with it.",
    "after": "It is 21 degrees there.",
}


@pytest.fixture(scope="session")
def bird(tmp_path_factory):
    model = parrot.make(str(tmp_path_factory.mktemp("parrot") / "model"), TEXTS, template=parrot.HERMES_THINKS)
    with Server(model, {}, ["--threads", "2"], name="parrot") as s:
        yield s


@pytest.fixture(scope="session")
def voices():
    with Server(LLAMA, {v: os.path.join(ADAPTERS, v) for v in ("shows_A", "shows_B", "qv_r4")}, ["--threads", "2"], name="tiny") as s:
        yield s


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: "test_matrix.py" in item.nodeid)  # it looks at the others' outcomes


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    matrix.note_outcome(item, (yield).get_result())
