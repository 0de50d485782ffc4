"""Stamps and the types of adapters in memory, from the command line and the operators' API."""
import json, os, shutil, subprocess

import pytest

from conftest import ADAPTERS, LLAMA
from harness import BINARY, Server

API = "/admin/v1/adapters"


@pytest.fixture()
def folder(tmp_path):
    shutil.copytree(os.path.join(ADAPTERS, "patterns"), tmp_path / "pt")
    return tmp_path


def stamp(path):
    return subprocess.run([BINARY, "stamp", str(path), "--model", LLAMA, "--base-name", "tiny"], capture_output=True,
                          text=True)


def put(server, **more):
    return server.admin("PUT", f"{API}/pt", {"source": "pt", **more})


def match(server):
    return server.admin("GET", f"{API}/pt")[1]["base_match"]


def test_a_stamp_proves_the_base(folder):
    with Server(LLAMA, {}, ["--adapter-root", str(folder), "--base-match", "proven"], name="tiny") as s:
        status, answer, _ = put(s)
        assert status == 422 and answer["error"]["code"] == "mismatch" and "base-match" in answer["error"]["message"]
        r = stamp(folder / "pt")
        assert r.returncode == 0, r.stderr
        status, answer, _ = put(s)
        assert status in (200, 201), answer
        assert match(s)["outcome"] == "exact" and match(s)["stamped"]
    with Server(LLAMA, {}, ["--adapter-root", str(folder), "--base-match", "proven", "--quant", "q8_0",
                            "--adapter-store", "int8"], name="tiny") as s:
        status, answer, _ = put(s)
        assert status in (200, 201), answer
        assert match(s)["outcome"] == "quantised"
        assert s.admin("GET", f"{API}/pt")[1]["stored"] == "int8"
        status, answer = s.post("/v1/completions", {"model": "pt", "prompt": "x", "max_tokens": 3})
        assert status == 200


def test_a_stamp_of_another_base_is_refused(folder):
    assert stamp(folder / "pt").returncode == 0
    path = folder / "pt" / "lorikeet_base.json"
    text = json.loads(path.read_text())
    for i, spot in enumerate(text["spots"]):  # other weights: all values negated
        kind, ends, values, steps = spot.split(" ")
        values = "".join(f"{int(values[k:k + 8], 16) ^ 0x80000000:08x}" for k in range(0, len(values), 8))
        text["spots"][i] = " ".join((kind, ends, values, steps))
    text["digest"] = "0" * 64
    path.write_text(json.dumps(text))
    with Server(LLAMA, {}, ["--adapter-root", str(folder)], name="tiny") as s:
        status, answer, _ = put(s)
        assert status == 422 and answer["error"]["code"] == "mismatch", answer
        assert "other weights" in answer["error"]["message"]
    path.write_text("{}")
    with Server(LLAMA, {}, ["--adapter-root", str(folder)], name="tiny") as s:
        status, answer, _ = put(s)
        assert status == 422 and answer["error"]["code"] == "format" and "lorikeet_base.json" in answer["error"]["message"]
