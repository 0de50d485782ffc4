"""Answers that must follow a schema, a regular expression, choices or a grammar: every one of them does."""
import json, re

import jsonschema
import openai
import pytest
from pydantic import BaseModel
from typing import Literal, Optional

HELLO = [{"role": "user", "content": "Hello, bird!"}]
BIRD = {"type": "object", "additionalProperties": False, "required": ["name", "age", "tags"],
        "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 6},
                       "age": {"type": "integer", "minimum": 0, "maximum": 120},
                       "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 3},
                       "mood": {"anyOf": [{"type": "null"}, {"type": "string", "pattern": "^[a-z]{2,5}$"}]}}}


def chat(client, seed=1, **more):
    extra = more.pop("extra_body", {})
    r = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=400, temperature=1.5, seed=seed,
                                       extra_body=extra, **more)
    return r.choices[0]


def schema_format(schema):
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


@pytest.mark.parametrize("seed", range(4))
def test_a_schema_is_kept_to(client, seed):
    c = chat(client, seed, response_format=schema_format(BIRD))
    assert c.finish_reason == "stop"
    jsonschema.validate(json.loads(c.message.content), BIRD)


def test_every_name_of_a_schema_means_the_same(client):
    ways = [dict(response_format=schema_format(BIRD)), dict(extra_body={"guided_json": BIRD}),
            dict(extra_body={"guided_json": json.dumps(BIRD)}), dict(extra_body={"json_schema": BIRD}),
            dict(extra_body={"structured_outputs": {"json": BIRD}}),
            dict(extra_body={"response_format": {"type": "json_object", "schema": BIRD}}),
            dict(extra_body={"response_format": {"type": "json_schema", "schema": BIRD}})]
    assert len({chat(client, 3, **w).message.content for w in ways}) == 1


def test_white_space_may_be_left_out(client):
    nested = {"type": "object", "required": ["a", "b"], "properties": {
        "a": {"type": "array", "items": {"enum": [1, 2]}, "minItems": 2, "maxItems": 3}, "b": {"const": {"x": [1, {}]}}}}
    spaced = 0
    for seed in range(6):
        def said(so):
            return chat(client, seed, extra_body={"structured_outputs": so}).message.content
        text = said({"json": nested, "disable_any_whitespace": True})
        assert " " not in text and "\n" not in text
        jsonschema.validate(json.loads(text), nested)
        spaced += any(c in said({"json": nested}) for c in " \n")
        assert said({"json": nested, "disable_any_whitespace": False}) == said({"json": nested})
        alone = {"disable_any_whitespace": True}  # acts on response_format, as in vLLM, and on nobody else's
        beside = chat(client, seed, response_format=schema_format(nested), extra_body={"structured_outputs": alone})
        assert beside.message.content == text
        ours = [chat(client, seed, extra_body={"json_schema": nested, **x}).message.content
                for x in ({}, {"structured_outputs": alone})]
        assert ours[0] == ours[1]
    assert spaced
    with pytest.raises(openai.BadRequestError, match="disable_any_whitespace"):
        chat(client, extra_body={"structured_outputs": {"json": nested, "disable_any_whitespace": "yes"}})


def test_completions_and_streams_too(client):
    kwargs = dict(model="qv_r4", prompt="A bird:", max_tokens=400, temperature=1, seed=5,
                  extra_body={"guided_json": BIRD})
    whole = client.completions.create(**kwargs).choices[0]
    jsonschema.validate(json.loads(whole.text), BIRD)
    chunks = list(client.completions.create(stream=True, **kwargs))
    assert "".join(c.choices[0].text for c in chunks) == whole.text
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_parse_gives_the_model(client):
    class Bird(BaseModel):
        kind: Literal["parrot", "lorikeet"]
        age: int
        happy: bool
        friend: Optional["Bird"]
    r = client.chat.completions.parse(model="tiny", messages=HELLO, max_tokens=450, temperature=1, seed=2,
                                      response_format=Bird)
    assert isinstance(r.choices[0].message.parsed, Bird)


@pytest.mark.parametrize("field", ["guided_regex", "regex", "structured_outputs"])
@pytest.mark.parametrize("pattern", [r"(\d{3}-){2}\d{4}", r"[A-Z][a-z]{2,8}( [A-Z][a-z]{2,8})?", r"caf\u00e9|th\u00e9 vert"])
def test_regular_expressions(client, field, pattern):
    body = {field: pattern} if field != "structured_outputs" else {"structured_outputs": {"regex": pattern}}
    c = chat(client, 4, extra_body=body)
    assert c.finish_reason == "stop" and re.fullmatch(pattern, c.message.content)


def test_choices(client):
    choices = ["yes", "no", "maybe", "não"]
    seen = {chat(client, s, extra_body={"guided_choice": choices}).message.content for s in range(8)}
    assert seen <= set(choices) and len(seen) > 1
    c = chat(client, 1, extra_body={"structured_outputs": {"choice": ["only"]}})
    assert c.message.content == "only" and c.finish_reason == "stop"


@pytest.mark.parametrize("field", ["grammar", "guided_grammar", "ebnf", "structured_outputs"])
def test_gbnf(client, field):
    text = 'root ::= term ([-+*] term){1,3}\nterm ::= [1-9] [0-9]{0,2} | "(" term "+" term ")"\n'
    c = chat(client, 6, extra_body={field: text if field != "structured_outputs" else {"grammar": text}})
    assert c.finish_reason == "stop" and isinstance(eval(c.message.content), int)


def test_json_object(client):
    def starts(text):
        depth = json.JSONDecoder()
        try:
            return isinstance(depth.decode(text), dict)
        except json.JSONDecodeError as e:
            return text.lstrip().startswith("{") and e.pos >= len(text) - 8 or "Unterminated" in e.msg
    for body in ({"response_format": {"type": "json_object"}}, {"structured_outputs": {"json_object": True}}):
        c = chat(client, 1, extra_body=body)
        assert c.message.content.startswith("{") and starts(c.message.content)


def test_ends_are_the_grammars(client):
    body = {"guided_choice": ["ab"], "ignore_eos": True, "min_tokens": 50}
    c = chat(client, 1, extra_body=body)
    assert c.message.content == "ab" and c.finish_reason == "stop"
    r = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=2, extra_body={"guided_regex": "a{30}"})
    assert r.choices[0].finish_reason == "length" and set(r.choices[0].message.content) == {"a"}


def test_logprobs_are_the_models(client):
    kwargs = dict(model="tiny", messages=HELLO, max_tokens=1, temperature=0, logprobs=True, top_logprobs=5)
    free = client.chat.completions.create(**kwargs).choices[0].logprobs.content[0]
    bound = client.chat.completions.create(extra_body={"guided_choice": ["zebra"]}, **kwargs).choices[0].logprobs
    assert [(t.token, t.logprob) for t in bound.content[0].top_logprobs] == [(t.token, t.logprob) for t in
                                                                             free.top_logprobs]
    assert bound.content[0].logprob < free.logprob


def test_several_choices_and_adapters_in_one_step(client):
    r = client.chat.completions.create(model="shows_A", messages=HELLO, n=4, max_tokens=200, temperature=1.2, seed=9,
                                       response_format=schema_format(BIRD))
    for c in r.choices:
        jsonschema.validate(json.loads(c.message.content), BIRD)


@pytest.mark.parametrize("body, named", [
    ({"response_format": schema_format({"type": "object", "not": {}})}, "nothing matches"),
    ({"response_format": schema_format({"type": "object", "not": {"oneOf": [{}]}})}, "\"not\" of a schema with \"oneOf\""),
    ({"response_format": schema_format({"properties": {"a": {"madeUp": 3}}})}, "#/properties/a"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}, "name"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}}, "name"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}}, "schema"),
    ({"response_format": {"type": "json_schema"}}, "json_schema"),
    ({"response_format": {"type": "yaml"}}, "yaml"),
    ({"response_format": "json_object"}, "response_format"),
    ({"guided_regex": "("}, "guided_regex"), ({"guided_regex": "(a)\\1"}, "backreference"),
    ({"guided_regex": 1}, "guided_regex"), ({"guided_choice": []}, "guided_choice"),
    ({"guided_choice": ["a", 1]}, "choice[1]"), ({"guided_json": "{"}, "guided_json"),
    ({"guided_json": 5}, "guided_json"), ({"grammar": "root ::= x"}, "\"x\""), ({"guided_grammar": "a: b"}, "rule"),
    ({"structured_outputs": {"json": {}, "regex": "a"}}, "structured_outputs.regex"),
    ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_regex"),
    ({"response_format": {"type": "json_object"}, "grammar": 'root ::= "a"'}, "response_format and grammar"),
    ({"structured_outputs": {"structural_tag": "x"}}, "structural_tag"),
    ({"guided_whitespace_pattern": "x", "guided_json": {}}, "guided_whitespace_pattern"),
    ({"grammar_lazy": True, "grammar": 'root ::= "a"'}, "grammar_lazy"),
    ({"guided_regex": "a" * 70000}, "65536"), ({"guided_json": {"enum": ["x" * 70000]}}, "65536"),
])
def test_what_is_not_done_is_refused_by_name(client, body, named):
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=4, extra_body=body)
    assert named in e.value.body["message"]


@pytest.mark.parametrize("body", [
    {"response_format": {"type": "text"}}, {"response_format": None, "guided_json": None, "grammar": ""},
    {"structured_outputs": {}}, {"guided_regex": None, "guided_decoding_backend": "xgrammar"}])
def test_what_asks_for_nothing_is_nothing(client, body):
    r = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=4, extra_body=body)
    assert r.choices[0].message.content is not None
