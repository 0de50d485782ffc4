"""The Vercel AI SDK (npm) through chat/completions, responses, Anthropic's messages and embeddings."""
import json, os, shutil, subprocess

import pytest

from conftest import HERE, TEXTS

BUILD = os.path.join(os.path.dirname(os.path.dirname(HERE)), "build", "npm-clients")


@pytest.fixture(scope="module")
def said(bird, voices):
    if not shutil.which("npm"):
        pytest.skip("there is no npm here")
    os.makedirs(BUILD, exist_ok=True)
    for name in ("package.json", "ai_sdk.mjs"):
        shutil.copy(os.path.join(HERE, name), BUILD)
    subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund"], cwd=BUILD, check=True, timeout=600)
    done = subprocess.run(["node", "ai_sdk.mjs", bird.url, voices.url], cwd=BUILD, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("api", ["chat", "openai", "responses", "messages"])
def test_text_stream_and_tools(said, api):
    got = said[api]
    assert got["text"].strip() == TEXTS["plain"].strip() and got["streamed"].strip() == TEXTS["plain"].strip()
    assert got["finish"] == "stop" and got["usage"] > 3
    assert got["calls"] == [["get_weather", {"city": "São Paulo", "days": 2}]] and got["results"] == ["21 degrees in São Paulo"]
    assert got["after"] == TEXTS["after"]


def test_reasoning_objects_and_embeddings(said):
    assert said["thought"].strip() == "The bird wonders."
    assert said["object"]["colour"] in ("red", "blue") and said["object"]["gears"] in (1, 3) and said["object"]["electric"] in (True, False)
    assert len(said["lengths"]) == 2 and all(abs(x - 1) < 1e-3 for x in said["lengths"])
