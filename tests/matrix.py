"""docs/clients.md says which client was seen doing what, each cell by a test: what that table names, for the tests that see to it that it is true.

A cell: `FILE: NAME, NAME …; FILE: NAME`, a row's file until another one is named, or "the same" as the cell before. NAME is a test's
(without test_) or a recorded request's, `NAME…` all that begin so; what stands in parentheses is for people."""
import ast, glob, os, re

import pytest

from harness import ROOT

OUTCOMES = pytest.StashKey()  # of the tests that have run, by their ids
FOLDERS = {"tests/api": os.path.join(ROOT, "tests", "api"), "tests/clients": os.path.join(ROOT, "tests", "clients")}
REQUESTS = {"test_clients_recorded": "recorded", "test_client_requests": "requests", "test_dialect_tools": "requests_other"}


def matrix():
    """[client, [cells]]"""
    with open(os.path.join(ROOT, "docs", "clients.md")) as f:
        text = f.read().split("## Client × feature")[1].split("\n## ")[0]
    table = [line for line in text.split("\n| client | chat |")[1].split("\n\n")[0].splitlines()[2:]]
    return [(cells[0], cells[1:]) for cells in ([c.strip() for c in line.strip().strip("|").split("|")] for line in table)]


def names_in(folder, file):
    """What a cell may name of that file → pytest's ids of it."""
    with open(os.path.join(FOLDERS[folder], file + ".py")) as f:
        tree = ast.parse(f.read())
    functions = [n.name for n in tree.body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]
    names = {f[5:]: f for f in functions}
    for path in glob.glob(os.path.join(FOLDERS["tests/api"], REQUESTS.get(file, "-"), "*.json")):
        names.setdefault(os.path.basename(path)[:-5], os.path.basename(path)[:-5])
    return names


def read_cell(cell, folder, file):
    """[(folder, file, name)], and the file that is named last."""
    found = []
    for item in re.split("[;,]", re.sub(r"\([^)]*\)", "", cell)):
        item = item.strip()
        if place := re.match(r"`(tests/\w+)` +", item):
            folder, item = place[1], item[place.end():]
        if ":" in item:
            file, item = (part.strip() for part in item.split(":", 1))
            folder = folder if os.path.exists(os.path.join(FOLDERS[folder], file + ".py")) else "tests/api"
        if item and item != "the same":
            found.append((folder, file, item))
    return found, folder, file


def cells():
    for client, row in matrix():
        folder, file, before = "tests/api", None, None
        for cell in row:
            if cell == "–":
                continue
            assert not cell.startswith("the same") or before, f"{client}: \"the same\" as what?"
            found, folder, file = read_cell(cell, folder, file)
            before = found or before
            yield client, cell, before


def note_outcome(item, report):
    if report.when == "call" or report.outcome != "passed":
        item.config.stash.setdefault(OUTCOMES, {})[item.nodeid] = report.outcome


def ids_of(ran, file, name):
    """pytest's ids of a test, or of what has that name as a parameter."""
    return [n for n in ran if file + ".py::" in n and re.search(f"::{re.escape(name)}($|\\[)|[\\[-]{re.escape(name)}[\\]-]", n)]


def check(request, here):
    """What of the table is wrong: names of no test, and tests of the folder `here` that haven't passed, if all of it runs. (faults, clients, number
    of tests)"""
    outcomes, faults, n_tests, clients = request.config.stash.get(OUTCOMES, {}), [], 0, set()
    ran = {i.nodeid for i in request.session.items}
    files = {os.path.basename(n.split("::")[0]) for n in ran}
    all_run = files >= {os.path.basename(f) for f in glob.glob(os.path.join(FOLDERS[here], "test_*.py"))}
    for client, cell, tests in cells():
        clients.add(client)
        for folder, file, name in tests:
            fits = [v for k, v in names_in(folder, file).items() if (k.startswith(name[:-1]) if name.endswith("…") else k == name)]
            if not fits:
                faults.append(f"{client}: {file} has no {name}")
            for fit in fits if folder == here else []:
                n_tests += 1
                runs = ids_of(ran, file, fit)
                if all_run and not runs:
                    faults.append(f"{client}: {file}: {fit} wasn't run")
                faults += [f"{client}: {n}: {outcomes.get(n, 'it has no outcome')}" for n in runs if outcomes.get(n, "passed" if not all_run else "it has no outcome") != "passed"]
    return faults, clients, n_tests
