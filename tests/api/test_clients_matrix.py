"""The matrix in docs/clients.md: each cell names tests that exist, and where all tests run they have passed (../matrix.py)."""
from types import SimpleNamespace

import pytest

import matrix


def test_every_cell_is_a_test(request):
    faults, clients, n_tests = matrix.check(request, "tests/api")
    assert not faults, "\n".join(faults)
    assert len(clients) == len(matrix.matrix()) >= 19 and n_tests >= 80, (clients, n_tests)


def test_a_cell_that_names_nothing_is_found(request, monkeypatch):
    cell = "test_openai_client: chat_and_its_stream_say_the_same"
    for cells, fault in (([cell, "no_such_test"], "x: test_openai_client has no no_such_test"), ([cell, "no_such…"], "x: test_openai_client has no no_such…"),
                         ([cell, "–", "`tests/clients` test_litellm: nothing"], "x: test_litellm has no nothing")):
        monkeypatch.setattr(matrix, "matrix", lambda: [("x", cells)])
        assert matrix.check(request, "tests/api")[0] == [fault]


@pytest.mark.parametrize("outcome", ["passed", "failed", "skipped"])
def test_a_test_that_has_not_passed_is_found(monkeypatch, outcome):
    """Whatever else runs: the session is a made one."""
    monkeypatch.setattr(matrix, "matrix", lambda: [("x", ["test_clients_matrix: every_cell_is_a_test"])])
    name = "tests/api/test_clients_matrix.py::test_every_cell_is_a_test"
    request = SimpleNamespace(config=SimpleNamespace(stash={matrix.OUTCOMES: {name: outcome}}),
                              session=SimpleNamespace(items=[SimpleNamespace(nodeid=name)]))
    assert matrix.check(request, "tests/api")[0] == ([f"x: {name}: {outcome}"] if outcome != "passed" else [])
