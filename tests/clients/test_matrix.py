"""The matrix in docs/clients.md names tests of this folder, too: they exist, and where all run they have passed (../matrix.py)."""
import matrix


def test_every_cell_is_a_test(request):
    faults, _, n_tests = matrix.check(request, "tests/clients")
    assert not faults, "\n".join(faults)
    assert n_tests >= 7, n_tests
