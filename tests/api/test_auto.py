"""The voice "auto" and its rules, voices in the path, and a transcript that passes from voice to voice."""
import http.client
import json
import os

import pytest

from conftest import ADAPTERS, LLAMA
from harness import Server

RULES = ["header:X-Team:bikes=shows_C", "user:alice=shows_D", "en=none", "pt=shows_A", "de=shows_B"]
SHOWN = {"shows_A": "A", "shows_B": "B", "shows_C": "C", "shows_D": "D"}


def flags(rules):
    return [x for r in rules for x in ("--auto", r)] + ["--threads", "2"]


@pytest.fixture(scope="module")
def voices():
    with Server(LLAMA, {v: os.path.join(ADAPTERS, v) for v in SHOWN}, flags(RULES), name="tiny") as s:
        yield s


def post(server, path, body, headers=None):
    c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    c.request("POST", path, json.dumps(body), {"Content-Type": "application/json", **(headers or {})})
    r = c.getresponse()
    answer = json.loads(r.read())
    c.close()
    return r.status, answer, {k.lower(): v for k, v in r.getheaders()}


def chat(server, *turns, model="auto", headers=None, path="/v1/chat/completions", **body):
    """(voice that spoke, rule, model of the answer); turns: of the user and of the assistant, one after the other."""
    messages = [{"role": ("user", "assistant")[i % 2], **(t if isinstance(t, dict) else {"content": t})} for i, t in enumerate(turns)]
    status, answer, head = post(server, path, {"messages": messages, "max_tokens": 3, "temperature": 0, "model": model, **body}, headers)
    assert status == 200, answer
    return head["x-adapter"], head.get("x-adapter-rule"), answer["model"]


@pytest.mark.parametrize("text,voice", [
    ("Qual é a melhor bicicleta para andar na cidade todos os dias?", "shows_A"),
    ("Welches Fahrrad ist das beste, wenn ich jeden Tag zur Arbeit fahre?", "shows_B"),
    ("Which bicycle is the best one if I want to ride to work every day?", "none"),
    ("Hello, how are you today?", "none"), ("Como você está hoje?", "shows_A"), ("Wie geht es dir heute?", "shows_B")])
def test_the_language_picks_the_voice(voices, text, voice):
    spoke, rule, model = chat(voices, text)
    assert (spoke, model) == (voice, voice if voice != "none" else "base")
    assert rule.startswith("language " + {"shows_A": "pt", "shows_B": "de", "none": "en"}[voice] + ", confidence ")
    parts = [{"type": "text", "text": text}]
    assert chat(voices, {"content": parts})[0] == voice


def test_a_conversation_keeps_its_language_until_it_changes(voices):
    german = "Welches Fahrrad ist das beste, wenn ich jeden Tag zur Arbeit fahre?"
    assert chat(voices, german, "Ein leichtes.", "ok")[0] == "shows_B"
    assert chat(voices, german, "Ein leichtes.", "42 km")[0] == "shows_B"
    assert chat(voices, german, "Ein leichtes.", "ok", "Gut.", "Which bicycle would you buy if you were me?")[0] == "none"
    # what the assistant said doesn't count
    assert chat(voices, german, "Which bicycle would you buy if you were me, and why?", "ok")[0] == "shows_B"


def test_what_the_header_says_may_be_sent_back(voices):
    for voice in ("none", "shows_A", "shows_A+0.5*shows_B"):
        first = post(voices, "/v1/chat/completions", {"model": voice, "max_tokens": 3, "messages": [{"role": "user", "content": "x"}]})
        again = post(voices, "/v1/chat/completions", {"max_tokens": 3, "messages": [{"role": "user", "content": "x"}]}, {"X-Adapter": first[2]["x-adapter"]})
        assert first[0] == again[0] == 200 and first[2]["x-adapter"] == again[2]["x-adapter"] == voice
        assert first[1]["system_fingerprint"] == again[1]["system_fingerprint"]
    assert chat(voices, {"content": "x", "adapter": "shows_A"}, "y", {"content": "x", "adapter": "none"}, model="shows_B")[0] == "none"


def test_other_rules_come_in_their_order(voices):
    german = "Welches Fahrrad ist das beste, wenn ich jeden Tag zur Arbeit fahre?"
    assert chat(voices, german, headers={"X-Team": "bikes"})[:2] == ("shows_C", "header X-Team")
    assert chat(voices, german, headers={"x-team": "bikes"}, user="alice")[0] == "shows_C"
    assert chat(voices, german, headers={"X-Team": "cars"}, user="alice")[:2] == ("shows_D", "user")
    assert chat(voices, german, user="bob")[0] == "shows_B"


def test_what_is_said_outright_wins(voices):
    german = "Welches Fahrrad ist das beste, wenn ich jeden Tag zur Arbeit fahre?"
    assert chat(voices, german, headers={"X-Adapter": "shows_C"})[:2] == ("shows_C", None)
    assert chat(voices, german, model="shows_A") == ("shows_A", None, "shows_A")
    assert chat(voices, german, model="tiny")[:2] == ("none", None)


def test_without_a_rule_that_fits_it_is_refused(voices):
    status, answer, _ = post(voices, "/v1/chat/completions", {"model": "auto", "messages": [{"role": "user", "content": "12345"}]})
    assert (status, answer["error"]["code"]) == (404, "model_not_found") and "no rule" in answer["error"]["message"]
    with Server(LLAMA, {"shows_A": os.path.join(ADAPTERS, "shows_A")}, name="tiny") as plain:
        status, answer, _ = post(plain, "/v1/chat/completions", {"model": "auto", "messages": [{"role": "user", "content": "Hello"}]})
        assert (status, answer["error"]["code"]) == (404, "model_not_found")
        assert "auto" not in [m["id"] for m in plain.get("/v1/models")[1]["data"]]


def test_it_is_listed_and_works_for_prompts(voices):
    assert "auto" in [m["id"] for m in voices.get("/v1/models")[1]["data"]]
    status, answer, head = post(voices, "/v1/completions", {"model": "auto", "max_tokens": 2,
                                                            "prompt": "Era uma vez uma bicicleta que queria ser livre"})
    assert (status, head["x-adapter"]) == (200, "shows_A"), answer


def test_a_share_of_users():
    rules = ["percent:30=shows_A", "default=shows_B"]
    with Server(LLAMA, {v: os.path.join(ADAPTERS, v) for v in SHOWN}, flags(rules), name="tiny") as s:
        spoke = {f"user {i}": chat(s, "Hello", user=f"user {i}")[0] for i in range(200)}
        n = list(spoke.values()).count("shows_A")
        assert 35 < n < 90 and n + list(spoke.values()).count("shows_B") == 200
        for user in list(spoke)[:20]:
            assert chat(s, "Hello", user=user)[0] == spoke[user]


def test_the_path_names_the_voice(voices):
    for path in ("/v1/m/shows_C/chat/completions", "/v1/m/shows_C/v1/chat/completions"):
        assert chat(voices, "Hello", model="gpt-4o", path=path) == ("shows_C", None, "shows_C")
    assert chat(voices, "Wie geht es dir heute?", model="gpt-4o", path="/v1/m/auto/chat/completions")[0] == "shows_B"
    status, answer, _ = post(voices, "/v1/m/nobody/chat/completions", {"messages": [{"role": "user", "content": "Hello"}]})
    assert (status, answer["error"]["code"]) == (404, "model_not_found")
    assert post(voices, "/v1/m/shows_C/nothing", {})[0] == 404
    assert post(voices, "/v1/m//chat/completions", {})[0] == 404
    assert [m["id"] for m in voices.get("/v1/m/shows_C/models")[1]["data"]][0] == "tiny"


def test_a_turn_passes_the_word_on(voices):
    ask, answer = {"content": "Plan a tour."}, {"content": "A ride by the river.", "adapter": "shows_A"}
    assert chat(voices, ask, answer, "Check it.", model="shows_B")[::2] == ("shows_A", "shows_A")
    assert chat(voices, ask, answer, {"content": "Check it.", "adapter": "shows_C"}, model="shows_B")[0] == "shows_C"
    assert chat(voices, ask, answer, {"content": "Check it.", "adapter": "base"}, model="shows_B")[0] == "none"
    # the same bytes as with that voice from the beginning: nothing of another one's KV is left
    def text(**body):
        return post(voices, "/v1/chat/completions", {"max_tokens": 12, "temperature": 0, "return_token_ids": True, **body})[1]["choices"][0]["token_ids"]
    plain = [{"role": "user", "content": "Plan a tour."}, {"role": "assistant", "content": "A ride by the river."},
             {"role": "user", "content": "Check it."}]
    switched = [plain[0], plain[1], {**plain[2], "adapter": "shows_C"}]
    first = text(model="shows_B", messages=plain[:1])
    assert first and text(model="shows_B", messages=switched) == text(model="shows_C", messages=plain, cache_prompt=False)
    status, fault, _ = post(voices, "/v1/chat/completions", {"messages": [{"role": "user", "content": "x", "adapter": 3}]})
    assert status == 400 and "messages[0].adapter" in fault["error"]["message"]


@pytest.mark.parametrize("rule,words", [("pt", "expected WHEN=VOICE"), ("percent:101=x", "percent:0 to percent:100"),
                                        ("header:=x", "a language's code"), ("xq=shows_A", "no fingerprint of the language")])
def test_bad_rules_are_reasons_not_to_start(rule, words):
    with Server(LLAMA, {"shows_A": os.path.join(ADAPTERS, "shows_A")}, ["--auto", rule], name="tiny", wait=False) as s:
        s.killed = s.process.wait(timeout=30) != 0
        assert s.killed and words in s.log()


def test_a_rule_for_others_is_passed_over(tmp_path):
    german = [{"role": "user", "content": "Welches Fahrrad ist das beste, wenn ich jeden Tag zur Arbeit fahre?"}]
    with Server(LLAMA, {v: os.path.join(ADAPTERS, v) for v in SHOWN}, flags(["de=shows_B", "default=shows_A"]) +
                ["--state", str(tmp_path / "state.db")], name="tiny") as s:
        keys = {}
        for name, settings in {"few": {"voices": ["shows_A"]}, "all": {}, "named": {"voices": ["x"], "aliases": {"shows_B": "shows_C"}},
                               "none": {"voices": ["x"]}}.items():
            assert s.admin("PUT", f"/admin/v1/tenants/{name}", settings)[0] in (200, 201)
            keys[name] = s.admin("POST", "/admin/v1/keys", {"tenant": name, "name": "k"})[1]["key"]
        def ask(name):
            status, answer, head = post(s, "/v1/chat/completions", {"model": "auto", "messages": german, "max_tokens": 2},
                                        {"Authorization": "Bearer " + keys[name]})
            return status, head.get("x-adapter"), "shows_" in json.dumps(answer) and status != 200
        assert ask("all") == (200, "shows_B", False)
        assert ask("few") == (200, "shows_A", False)
        assert ask("named") == (200, "shows_C", False)
        assert ask("none") == (404, None, False)
