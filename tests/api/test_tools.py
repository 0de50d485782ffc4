"""`lorikeet inspect, shrink, convert, merge` from the command line: numbers against NumPy's, answers before and after,
and nothing left behind."""
import json
import os
import resource
import signal
import struct
import subprocess

import pytest

from conftest import ADAPTERS, LLAMA
from harness import BINARY

np = pytest.importorskip("numpy")

QV = os.path.join(ADAPTERS, "qv_r4")


def run(*args, **options):
    return subprocess.run([BINARY, *map(str, args)], capture_output=True, text=True, timeout=60, **options)


def done(*args):
    r = run(*args)
    assert r.returncode == 0, r.stderr
    return r.stdout


def refused(*args, code=1):
    r = run(*args)
    assert r.returncode == code, (r.returncode, r.stderr)
    return r.stderr


def tensors(path):
    """Of a safetensors file of F32."""
    data = open(path, "rb").read()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + n])
    header.pop("__metadata__", None)
    return {name: np.frombuffer(data[8 + n + t["data_offsets"][0]:8 + n + t["data_offsets"][1]], "<f4").reshape(t["shape"])
            for name, t in header.items()}


def products(folder):
    """scale * B A of each module, as PEFT has them."""
    config = json.load(open(os.path.join(folder, "adapter_config.json")))
    t = tensors(os.path.join(folder, "adapter_model.safetensors"))
    out = {}
    for name, a in t.items():
        if name.endswith(".lora_A.weight"):
            path = name[len("base_model.model."):-len(".lora_A.weight")]
            b = t[name.replace("lora_A", "lora_B")]
            rank = config["rank_pattern"].get(path, config["r"])
            assert a.shape[0] == rank
            alpha = config["alpha_pattern"].get(path, config["lora_alpha"])
            out[path] = alpha / rank * b.astype("f8") @ a.astype("f8")
    return out


def answer(model, *args):
    return done("run", "--model", model, "--raw", "-p", "a small parrot", "-n", 12, "--temperature", 0, *args)


def test_inspect_shows_numpys_singular_values():
    report = json.loads(done("inspect", QV, "--json"))
    expected = products(QV)
    assert len(report["modules"]) == len(expected) > 0
    for m in report["modules"]:
        sigma = np.linalg.svd(expected[m["module"]], compute_uv=False)[:m["rank"]]
        assert np.allclose(m["singular_values"], sigma, rtol=1e-6, atol=1e-6 * sigma[0])
        assert m["n_parameters"] == m["rank"] * (m["in"] + m["out"]) and m["n_full"] == m["in"] * m["out"]
        energy = np.cumsum(sigma ** 2) / np.sum(sigma ** 2)
        assert m["rank_99"] == 1 + int(np.argmax(energy >= 0.99))
    assert report["total"]["n_parameters"] == report["n_parameters"]
    text = done("inspect", QV)
    assert "singular values" in text and "99%" in text
    base = json.loads(done("inspect", LLAMA, "--json"))
    assert base["family"] == "llama" and base["would_not_load"] is None


def test_shrink_makes_the_best_of_lower_rank(tmp_path):
    out = tmp_path / "small"
    report = json.loads(done("shrink", QV, out, "--rank", 2, "--json"))
    before, after = products(QV), products(out)
    for m in report["modules"]:
        sigma = np.linalg.svd(before[m["module"]], compute_uv=False)
        lost = np.linalg.norm(before[m["module"]] - after[m["module"]])
        assert m["rank_after"] == 2
        assert abs(lost - np.sqrt(np.sum(sigma[2:] ** 2))) < 1e-6 * sigma[0]
        assert abs(lost / np.linalg.norm(before[m["module"]]) - m["relative_error"]) < 1e-6
    assert report["n_after"] * 2 == report["n_before"]
    assert "is there already" in refused("shrink", QV, out, "--rank", 2)
    assert os.listdir(tmp_path) == ["small"]


def test_energy_1_gives_the_same_answers(tmp_path):
    out = tmp_path / "same"
    assert "8 -> " not in done("shrink", QV, out, "--energy", 1, "--type", "f32")
    assert answer(LLAMA, "--adapter", f"a={out}") == answer(LLAMA, "--adapter", f"a={QV}")


def test_convert_there_and_back(tmp_path):
    gguf, peft = tmp_path / "x.gguf", tmp_path / "peft"
    done("convert", os.path.join(ADAPTERS, "patterns"), gguf, "--model", LLAMA)
    done("convert", gguf, peft, "--model", LLAMA)
    assert len(products(peft)) > 0
    texts = {answer(LLAMA, "--adapter", f"a={p}") for p in (os.path.join(ADAPTERS, "patterns"), gguf, peft)}
    assert len(texts) == 1
    assert "a magnitude vector (DoRA)" in refused("convert", os.path.join(ADAPTERS, "dora_r3"), tmp_path / "y.gguf",
                                                  "--model", LLAMA)
    assert "--model BASE is needed" in refused("convert", QV, tmp_path / "y.gguf")
    assert sorted(os.listdir(tmp_path)) == ["peft", "x.gguf"]


def test_merge_is_a_model_of_its_own(tmp_path, server):
    out = tmp_path / "merged"
    both = (QV + ":0.5", os.path.join(ADAPTERS, "rslora_r8"))
    said = done("merge", "--model", LLAMA, *both, out)
    assert "matrices changed" in said and "rounding to the files' types took a norm of 0" in said
    body = {"prompt": "a small parrot", "max_tokens": 12, "temperature": 0, "model": "rslora_r8+0.5*qv_r4"}
    expected = server.post("/v1/completions", body)[1]["choices"][0]["text"]
    assert answer(out).rstrip("\n") == expected.rstrip("\n")
    assert "is there already" in refused("merge", "--model", LLAMA, QV, out)
    assert "alora_invocation_tokens" in refused("merge", "--model", LLAMA, os.path.join(ADAPTERS, "alora_r4"),
                                                tmp_path / "no")
    assert os.listdir(tmp_path) == ["merged"]


def ask_to_end():
    """The signal waits, also for the program that comes now."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    os.kill(os.getpid(), signal.SIGTERM)


def little_room():
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))


COMMANDS = {"shrink": ("shrink", QV, "OUT", "--rank", 1), "convert": ("convert", QV, "OUT", "--model", LLAMA),
            "merge": ("merge", "--model", LLAMA, QV, "OUT")}


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_is_left_behind(name, tmp_path):
    command = [tmp_path / "out" if a == "OUT" else a for a in COMMANDS[name]]
    ended = run(*command, preexec_fn=ask_to_end)
    assert ended.returncode == -signal.SIGTERM and "interrupted, nothing was kept" in ended.stderr
    assert os.listdir(tmp_path) == []
    full = run(*command, preexec_fn=little_room)
    assert full.returncode == 1 and "File too large" in full.stderr
    assert os.listdir(tmp_path) == []
    done(*command)
    assert os.listdir(tmp_path) == ["out"]


def test_wrong_usage_is_said():
    for args in (["shrink", QV], ["shrink", QV, "x"], ["shrink", QV, "x", "--rank", 1, "--energy", 0.5],
                 ["shrink", QV, "x", "--rank", 0], ["shrink", QV, "x", "--energy", 1.5], ["convert", QV],
                 ["convert", QV, "x", "--type", "q8_0"], ["merge", QV, "x"], ["merge", "--model", LLAMA, "x"],
                 ["merge", "--model", LLAMA, QV, "x", "--shard-mb", "no"], ["inspect"], ["inspect", QV, QV]):
        assert refused(*args, code=2)
    for command in ("inspect", "shrink", "convert", "merge"):
        assert f"usage: lorikeet {command}" in done(command, "--help")
        assert command in done("--help")
