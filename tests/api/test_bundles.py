"""adapter.yaml beside the weights: defaults of a voice, swapped with them as one version."""
import http.client
import json
import os
import shutil

import pytest

from conftest import ADAPTERS, LLAMA
from harness import Server

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"


def make(folder, text, source="shows_A"):
    if not os.path.isdir(folder):
        shutil.copytree(os.path.join(ADAPTERS, source), folder)
    with open(os.path.join(folder, "adapter.yaml"), "w") as f:
        f.write(text)
    return str(folder)


def post(server, path, body):
    c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    c.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    r = c.getresponse()
    answer = json.loads(r.read())
    c.close()
    return r.status, answer, {k.lower(): v for k, v in r.getheaders()}


def prompt(server, voice, messages, **body):
    """The prompt as tokens' text."""
    status, answer, _ = post(server, "/v1/chat/completions", {"model": voice, "messages": messages, "max_tokens": 1, "return_token_ids": True, **body})
    assert status == 200, answer
    return server.post("/detokenize", {"tokens": answer["choices"][0]["prompt_token_ids"]})[1]["content"]


USER = [{"role": "user", "content": "Oi"}]


@pytest.fixture(scope="module")
def voices(tmp_path_factory):
    root = tmp_path_factory.mktemp("bundles")
    adapters = {
        "plain": os.path.join(ADAPTERS, "qv_r4"),
        "shop": make(root / "shop", "description: of a shop\nsystem_prompt: Be short.\nsampling:\n  temperature: 0\n  max_tokens: 4\n"
                     f"chat_template: \"{TEMPLATE}\"\n", "qv_r4"),
        "strict": make(root / "strict", "system_prompt: Be kind.\nsampling:\n  max_tokens: 3\nlocked: [max_tokens, system_prompt]\n"
                       f"chat_template: \"{TEMPLATE}\"\n", "qv_r4"),
        "small": make(root / "small", f"context: 24\nchat_template: \"{TEMPLATE}\"\n", "qv_r4"),
    }
    with Server(LLAMA, adapters, ["--threads", "2", "--blend", "two=shop+plain"], name="tiny") as s:
        yield s


def ask(server, voice, messages=USER, **body):
    status, answer, head = post(server, "/v1/chat/completions", {"model": voice, "messages": messages, "ignore_eos": True, **body})
    assert status == 200, answer
    return answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"], head


def test_defaults_hold_where_the_caller_says_nothing(voices):
    assert ask(voices, "shop")[:2] == (4, "length")
    assert ask(voices, "shop", max_tokens=7)[:2] == (7, "length")
    assert ask(voices, "shop", max_completion_tokens=6)[:2] == (6, "length")
    texts = {post(voices, "/v1/chat/completions", {"model": "shop", "messages": USER})[1]["choices"][0]["message"]["content"] for _ in range(4)}
    assert len(texts) == 1 # temperature 0
    status, answer, _ = post(voices, "/v1/completions", {"model": "shop", "prompt": "Oi", "ignore_eos": True})
    assert answer["usage"]["completion_tokens"] == 4


def test_the_prompt_and_the_template_are_the_voices(voices):
    assert "<system>Be short.<user>Oi" in prompt(voices, "shop", USER)
    own = [{"role": "system", "content": "Be long."}] + USER
    assert "<system>Be long.<user>Oi" in prompt(voices, "shop", own) and "short" not in prompt(voices, "shop", own)
    assert "Be short" not in prompt(voices, "plain", USER) and "<user>" not in prompt(voices, "plain", USER)
    # a sum is no single voice: it has nobody's behaviour
    assert "Be short" not in prompt(voices, "two", USER)
    assert "Be short" not in prompt(voices, "shop", USER, model="0.5*shop")


def test_what_is_locked_wins_and_the_answer_says_so(voices):
    tokens, _, head = ask(voices, "strict", max_tokens=9)
    assert tokens == 3 and head["x-adapter-locked"] == "max_tokens"
    tokens, _, head = ask(voices, "strict", max_completion_tokens=9)
    assert tokens == 3 and head["x-adapter-locked"] == "max_tokens"
    assert "x-adapter-locked" not in ask(voices, "strict")[2] and "x-adapter-locked" not in ask(voices, "strict", max_tokens=3)[2]
    own = [{"role": "system", "content": "Be rude."}] + USER
    assert "<system>Be kind.\n\nBe rude.<user>Oi" in prompt(voices, "strict", own)
    parts = [{"role": "system", "content": [{"type": "text", "text": "Be rude."}]}] + USER
    assert "<system>Be kind.\nBe rude.<user>Oi" in prompt(voices, "strict", parts)


def test_a_smaller_context(voices):
    tokens, reason, _ = ask(voices, "small")
    assert reason == "length" and tokens < 24
    status, answer, _ = post(voices, "/v1/chat/completions", {"model": "small", "messages": [{"role": "user", "content": "word " * 60}]})
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded"), answer
    assert ask(voices, "shop", messages=[{"role": "user", "content": "word " * 20}])[0] == 4


def test_it_is_swapped_with_the_weights(tmp_path):
    folder = make(tmp_path / "a", "sampling:\n  max_tokens: 2\n")
    with Server(LLAMA, {"a": folder}, ["--threads", "2", "--adapter-root", str(tmp_path)], name="tiny") as s:
        before = [m for m in s.get("/v1/models")[1]["data"] if m["id"] == "a"][0]
        assert ask(s, "a")[0] == 2
        make(tmp_path / "a", "sampling:\n  max_tokens: 5\n")
        assert ask(s, "a")[0] == 2 # as long as that version serves
        status, answer, _ = s.admin("POST", "/admin/v1/adapters/a/reload")
        assert status == 200, answer
        shown = s.admin("GET", "/admin/v1/adapters/a")[1]
        assert '"behaviour": {"sampling": {"max_tokens": 5}}' in json.dumps(shown), shown
        after = [m for m in s.get("/v1/models")[1]["data"] if m["id"] == "a"][0]
        assert ask(s, "a")[0] == 5 and after["digest"] != before["digest"] and after["generation"] == before["generation"] + 1
        assert ask(s, "a@1")[0] == 2
        status, answer, _ = s.admin("POST", "/admin/v1/adapters/a/rollback")
        assert status == 200 and ask(s, "a")[0] == 2
        make(tmp_path / "a", "sampling:\n  heat: 5\n")
        status, answer, _ = s.admin("POST", "/admin/v1/adapters/a/reload")
        assert status >= 400 and "heat" in json.dumps(answer) and "adapter.yaml" in json.dumps(answer)
        assert ask(s, "a")[0] == 2
        os.remove(os.path.join(folder, "adapter.yaml"))
        assert s.admin("POST", "/admin/v1/adapters/a/reload")[0] == 200
        assert ask(s, "a", max_tokens=9)[0] == 9


def test_the_watched_folder_sees_it(tmp_path):
    import time
    make(tmp_path / "w", "sampling:\n  max_tokens: 2\n")
    with Server(LLAMA, {}, ["--threads", "2", "--adapters", str(tmp_path), "--adapters-poll", "1s"], name="tiny") as s:
        assert ask(s, "w")[0] == 2
        make(tmp_path / "w", "sampling:\n  max_tokens: 6\n")
        end = time.time() + 30
        while ask(s, "w")[0] != 6 and time.time() < end:
            time.sleep(0.1)
        assert ask(s, "w")[0] == 6


def test_a_grammar_of_the_voice(tmp_path):
    folder = make(tmp_path / "g", "regex: '(yes|no)!'\n", "qv_r4")
    with Server(LLAMA, {"g": folder}, ["--threads", "2"], name="tiny") as s:
        def text(**body):
            status, answer, _ = post(s, "/v1/chat/completions", {"model": "g", "messages": USER, "max_tokens": 40, **body})
            assert status == 200, answer
            return answer["choices"][0]["message"]["content"]
        assert text() in ("yes!", "no!") and text(seed=3) in ("yes!", "no!")
        assert text(guided_choice=["maybe"]) == "maybe" # the caller's own wins
        assert text(response_format={"type": "text"}) in ("yes!", "no!")
        sing = {"name": "sing", "parameters": {"type": "object"}}
        said = text(tools=[{"type": "function", "function": sing}], temperature=0)
        assert said not in ("yes!", "no!") and text(functions=[sing], temperature=0) == said  # calls must be possible
