"""No voice waits more than --wait-bound: where all places are taken, running requests are paused for it, and say the same."""
import concurrent.futures
import http.client
import json
import os
import re
import shutil
import time

import pytest

from conftest import ADAPTERS, LLAMA
from harness import Server

SHOWN = {f"shows_{x}": os.path.join(ADAPTERS, f"shows_{x}") for x in "ABCD"}
BOUND = 0.2
LONG = 4000  # tokens, a second or more
OPTIONS = ["--threads", "1", "--sequences", "2", "--context", "8192", "--wait-bound", f"{int(BOUND * 1000)}ms"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The tiny one, for texts that take longer than the bound."""
    path = str(tmp_path_factory.mktemp("model") / "long")
    shutil.copytree(LLAMA, path)
    with open(os.path.join(path, "config.json")) as f:
        config = json.load(f)
    config["max_position_embeddings"] = 8192
    with open(os.path.join(path, "config.json"), "w") as f:
        json.dump(config, f)
    return path


def stream(server, key, n, on_first=None, **body):
    """(token ids, when the first came, when the last did)"""
    c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    body = {"prompt": [1, 30, 31, 32, 50], "max_tokens": n, "ignore_eos": True, "return_token_ids": True, "stream": True, **body}
    c.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json", **({"Authorization": "Bearer " + key} if key else {})})
    r = c.getresponse()
    assert r.status == 200, r.read()
    ids, first = [], None
    for line in r:
        if line.startswith(b"data: {"):
            event = json.loads(line[6:])
            assert "error" not in event, event
            ids += event["choices"][0].get("token_ids") or [] if event["choices"] else []
            if ids and first is None:
                first = time.time()
                if on_first:
                    on_first()
    c.close()
    return ids, first, time.time()


LENGTHY = [{"model": "shows_A", "temperature": 0},
           {"model": "shows_A", "temperature": 1, "seed": 11, "prompt": [1, 40, 41], "grammar": "root ::= ([a-z]+ [ ,])*", "min_tokens": LONG}]


@pytest.fixture(scope="module")
def alone(model):
    with Server(model, SHOWN, OPTIONS) as s:
        return [stream(s, None, LONG, **body)[0] for body in LENGTHY]


def numbers(server):
    text = server.admin_request("GET", "/metrics")[1]
    return {m[0]: float(m[1]) for m in re.findall(r"^(lorikeet_\S+) (\S+)$", text, re.M)}


@pytest.mark.parametrize("who", ["everybody", "two tenants", "its own crowd"])
def test_a_voice_has_its_first_token_within_the_bound(model, alone, tmp_path, who):
    tenants = who == "two tenants"
    with Server(model, SHOWN, OPTIONS + (["--state", str(tmp_path / "s.db")] if tenants else [])) as s:
        keys = [None, None]
        for i in range(2) if tenants else []:
            assert s.admin("PUT", f"/admin/v1/tenants/t{i}", {"priority": "batch" if i else "interactive"})[0] in (200, 201)
            keys[i] = s.admin("POST", "/admin/v1/keys", {"tenant": f"t{i}", "name": "k"})[1]["key"]
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            crowd = [pool.submit(stream, s, keys[0], LONG, **body) for body in LENGTHY]
            while numbers(s)["lorikeet_sequences_running"] < 2:
                time.sleep(0.01)
            asked = time.time()
            ids, first, last = stream(s, keys[1], 20, model="shows_A" if who == "its own crowd" else "shows_B", temperature=0)
            seen = numbers(s)
            assert not any(f.done() for f in crowd)  # most of both is left
            results = [f.result() for f in crowd]
        assert len(ids) == 20 and last < min(r[2] for r in results)
        print(f"{who}: {first - asked:.3f} s to the first token, bound {BOUND} s")
        assert [r[0] for r in results] == alone
        assert seen["lorikeet_wait_bound_seconds"] == BOUND and seen["lorikeet_late_starts_total"] >= 1
        after = numbers(s)
        assert 1 <= after["lorikeet_bound_pauses_total"] <= 3 * 3
        assert after["lorikeet_sequences_paused"] == after["lorikeet_sequences_running"] == after["lorikeet_queue_length"] == 0
        waited = max(after[f'lorikeet_voice_wait_max_seconds{{class="{c}"}}'] for c in ("interactive", "batch"))
        assert waited > 0.8 * BOUND


def test_more_voices_than_places_wait(model, tmp_path):
    with Server(model, SHOWN, OPTIONS) as s:
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            crowd = [pool.submit(stream, s, None, LONG, **body) for body in LENGTHY]
            while numbers(s)["lorikeet_sequences_running"] < 2:
                time.sleep(0.01)
            asked = time.time()
            others = [pool.submit(stream, s, None, LONG // 4, model=m, temperature=0) for m in ("shows_B", "shows_C", "shows_D", "base")]
            firsts = [f.result()[1] - asked for f in others]
            [f.result() for f in crowd]
        after = numbers(s)
        longest = after['lorikeet_voice_wait_max_seconds{class="interactive"}']
        print("first tokens after", [f"{f:.3f}" for f in firsts], f"s, the longest wait was {longest:.3f} s, bound {BOUND} s")
        assert after["lorikeet_late_starts_total"] >= 4 and after["lorikeet_bound_pauses_total"] >= 4
