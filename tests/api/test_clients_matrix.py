"""The matrix in docs/clients.md: each cell names tests that exist, and where all tests run they have passed (../matrix.py)."""
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


@pytest.mark.parametrize("outcome", ["failed", "skipped"])
def test_a_test_that_has_not_passed_is_found(request, monkeypatch, outcome):
    monkeypatch.setattr(matrix, "matrix", lambda: [("x", ["test_clients_matrix: every_cell_is_a_test"])])
    known = request.config.stash.setdefault(matrix.OUTCOMES, {})
    name = request.node.nodeid.split("::")[0] + "::test_every_cell_is_a_test"
    before = known.get(name)
    known[name] = outcome
    faults = matrix.check(request, "tests/api")[0]
    known.pop(name) if before is None else known.update({name: before})
    assert faults == [f"x: {name}: {outcome}"] or not any(i.nodeid == name for i in request.session.items)
