"""`lorikeet eval` from the command line: its numbers, its JSON, and what it refuses."""
import json
import math
import os
import subprocess

from conftest import ADAPTERS, LLAMA
from harness import BINARY

TEXT = "A small parrot: one bird, many voices. " * 12 + "Ümläute, 日本語 und Zahlen: 3.14159, 2 + 2 = 4.\n"


def run(*args):
    return subprocess.run([BINARY, "eval", *map(str, args)], capture_output=True, text=True, timeout=120)


def measure(tmp_path, *args, text=TEXT):
    path = tmp_path / "text"
    path.write_text(text)
    done = run("--model", LLAMA, "--text", path, "--context", 64, "--json", *args)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(*args):
    done = run(*args)
    assert done.returncode in (1, 2) and done.stdout == "", done.stdout
    return done.stderr


def test_perplexity_is_what_the_server_says_of_the_same_tokens(server, tmp_path):
    text = TEXT[:40]
    ids = server.post("/tokenize", {"content": text, "add_special": True})[1]["tokens"]
    assert 3 < len(ids) <= 64
    body = {"model": "tiny", "prompt": ids, "max_tokens": 1, "echo": True, "logprobs": 1, "temperature": 0}
    answer = server.post("/v1/completions", body)[1]["choices"][0]["logprobs"]["token_logprobs"]
    expected = [-p for p in answer[1:len(ids)]]
    got = measure(tmp_path, text=text)
    assert got["bos"] and got["n_scored"] == len(expected) == got["n_tokens"] and got["n_windows"] == 1
    assert math.isclose(got["nll"]["mean"], sum(expected) / len(expected), rel_tol=1e-5)
    assert math.isclose(got["perplexity"], math.exp(got["nll"]["mean"]), rel_tol=1e-6)


def test_divergence_grows_with_coarser_weights(tmp_path):
    same, q8, q4 = (measure(tmp_path, "--quant", t, "--against-quant", "f32") for t in ("f32", "q8_0", "q4_0"))
    assert same["kl"]["mean"] == same["kl"]["max"] == same["rms_dp"] == 0 and same["same_top"]["mean"] == 1
    assert q4["kl"]["mean"] > q8["kl"]["mean"] > 0
    assert same["perplexity"] == same["reference_perplexity"] == q4["reference_perplexity"]


def test_an_adapter_changes_the_numbers_and_saved_ones_come_back(tmp_path):
    saved = tmp_path / "saved.lp"
    adapter = ("--adapter", os.path.join(ADAPTERS, "all_r8_bf16"))
    base = measure(tmp_path, "--save-logits", saved)
    assert measure(tmp_path, "--against", saved)["kl"]["max"] == 0
    voice = measure(tmp_path, "--against", saved, *adapter)
    assert voice["reference_perplexity"] == base["perplexity"] != voice["perplexity"] and voice["kl"]["mean"] > 0
    assert measure(tmp_path, *adapter, "--against-quant", "f32")["kl"]["max"] == 0  # the reference has it too
    assert os.listdir(tmp_path).count("saved.lp.part") == 0


def test_several_adapters_are_the_sum_of_their_deltas(tmp_path):
    one, two = (os.path.join(ADAPTERS, a) for a in ("qv_r4", "rslora_r8"))
    alone, both = measure(tmp_path, "--adapter", one), measure(tmp_path, "--adapter", one, "--adapter", f"x={two}:0.5")
    assert both["adapters"] == [{"name": "adapter", "scale": 1}, {"name": "x", "scale": 0.5}]
    assert both["perplexity"] != alone["perplexity"]
    nothing = measure(tmp_path, "--adapter", one, "--adapter", two + ":0")
    assert math.isclose(nothing["perplexity"], alone["perplexity"], rel_tol=1e-6)
    halves = measure(tmp_path, "--adapter", f"a={one}:0.5", "--adapter", f"b={one}:0.5", "--against-quant", "auto", "--merged", "f32")
    assert math.isclose(halves["perplexity"], alone["perplexity"], rel_tol=1e-5) and abs(halves["kl"]["max"]) < 1e-6


def test_merged_is_unmerged_within_its_type(tmp_path):
    adapter = ("--adapter", "pt=" + os.path.join(ADAPTERS, "rslora_r8"), "--against-quant", "auto")
    f32, bf16, q8 = (measure(tmp_path, *adapter, "--merged", t) for t in ("f32", "bf16", "q8_0"))
    unmerged = measure(tmp_path, *adapter[:2])
    assert f32["reference_perplexity"] == unmerged["perplexity"] and f32["adapters"] == [{"name": "pt", "scale": 1}]
    assert f32["merged"]["n_matrices"] > 0 and f32["merged"]["error_norm"] == 0
    assert abs(f32["kl"]["mean"]) < 1e-7 < bf16["kl"]["mean"] < q8["kl"]["mean"] < 1e-2
    assert 0 < bf16["merged"]["error_norm"] < q8["merged"]["error_norm"] < q8["merged"]["delta_norm"]


def test_text_for_people(tmp_path):
    (tmp_path / "text").write_text(TEXT)
    out = run("--model", LLAMA, "--text", tmp_path / "text", "--against-quant", "q8_0").stdout
    assert [line.split()[0] for line in out.splitlines()] == [
        "model", "text", "tokens", "perplexity", "reference", "KL", "same", "RMS"]


def test_refusals(tmp_path):
    text, bad, short, nothing = (tmp_path / n for n in ("text", "bad", "short", "nothing"))
    text.write_text(TEXT)
    bad.write_bytes(b"abc\xff")
    short.write_text("a")
    nothing.write_text("")
    base = ("--model", LLAMA)
    assert "not UTF-8 at byte 3" in refused(*base, "--text", bad)
    assert "at least 2 are needed" in refused(*base, "--text", short)
    assert "0 tokens" in refused(*base, "--text", nothing)
    assert "absent" in refused(*base, "--text", tmp_path / "absent")
    assert "usage" in refused(*base) and "usage" in refused("--text", text)
    assert "expected 2 to 512" in refused(*base, "--text", text, "--context", 513)
    assert "--stride: found 64, expected 1 to 63" in refused(*base, "--text", text, "--context", 64, "--stride", 64)
    assert '--stride: found "x"' in refused(*base, "--text", text, "--stride", "x")
    assert "one reference at a time" in refused(*base, "--text", text, "--against", "x", "--against-quant", "q8_0")
    assert "--against-quant: quant: found \"q3\"" in refused(*base, "--text", text, "--against-quant", "q3")
    assert "no --adapter to merge" in refused(*base, "--text", text, "--merged", "bf16")
    voice = ("--adapter", os.path.join(ADAPTERS, "qv_r4"))
    assert "merging into q4_0 is not offered" in refused(*base, *voice, "--text", text, "--merged", "q4_0")
    assert "expected f32, bf16 or q8_0" in refused(*base, *voice, "--text", text, "--merged", "int4")
    assert "expected f32 or f16" in refused(*base, "--text", text, "--save-type", "f64")
    assert "no file of saved log-probabilities" in refused(*base, "--text", text, "--against", __file__)
    assert "unknown flag --nonsense" in refused(*base, "--text", text, "--nonsense", "1")
    saved = tmp_path / "saved"
    assert run(*base, "--text", text, "--save-logits", saved).returncode == 0
    text.write_text(TEXT.replace("parrot", "carrot"))
    assert "another text or tokenizer" in refused(*base, "--text", text, "--against", saved)
    assert run("--help").returncode == 0
