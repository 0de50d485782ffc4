"""Tools and reasoning with the real `openai` package, on models that say given texts by heart (parrot.py)."""
import calendar, json, os, shutil, time
from typing import Literal

import openai
import pydantic
import pytest

import parrot
from harness import DATA, Server

CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "São Paulo", "days": 2}}\n</tool_call>'
TEXTS = {
    "plain": "Good morning!  I am a parrot. ",
    "weather": CALL,
    "both": 'One moment. \n<tool_call>\n{"name":"now","arguments":{}}\n</tool_call>\n'
            '<tool_call> {"arguments" : {"city": "Rio"}, "name" : "get_weather"}</tool_call>',
    "broken": 'Look: <tool_call>\n{"name": "now", "arguments": {nonsense}}\n</tool_call> indeed',
    "think": "<think>\nThe bird wonders: <tool?\n</think>\n\nSo it says yes.",
    "": "I am still wondering.\n</think>\nDone with it.",  # behind a prompt that ends with <think>\n
    "thinkcall": '<think>He wants the time.</think><tool_call>{"name": "now"}</tool_call>',
    "after": "It is 21 degrees there.",
}
TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "Weather of a city", "parameters": {
            "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}}},
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tmp_path_factory.mktemp("parrots"))


@pytest.fixture(scope="module")
def parrots(folder):
    model = parrot.make(os.path.join(folder, "hermes"), TEXTS, template=parrot.HERMES_THINKS)
    with Server(model, {}, ["--threads", "2"], name="parrot") as s:
        yield s


@pytest.fixture(scope="module")
def bird(parrots):
    return openai.OpenAI(base_url=parrots.url + "/v1", api_key="none", max_retries=0)


def ask(cue, **more):
    return {"model": "parrot", "messages": [{"role": "user", "content": "Please #" + cue}], "tools": TOOLS, **more}


def calls_of(message):
    return [(c.function.name, json.loads(c.function.arguments)) for c in message.tool_calls or []]


def test_a_call_is_an_answer(bird):
    r = bird.chat.completions.create(**ask("weather"))
    choice = r.choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None and choice.message.refusal is None
    assert calls_of(choice.message) == [("get_weather", {"city": "São Paulo", "days": 2})]
    assert choice.message.tool_calls[0].type == "function" and choice.message.tool_calls[0].id.startswith("call_")
    again = bird.chat.completions.create(**ask("weather"))
    assert again.choices[0].message.tool_calls[0].id != choice.message.tool_calls[0].id


def test_text_and_two_calls(bird):
    message = bird.chat.completions.create(**ask("both")).choices[0].message
    assert message.content == "One moment."
    assert calls_of(message) == [("now", {}), ("get_weather", {"city": "Rio"})]
    one = bird.chat.completions.create(**ask("both", parallel_tool_calls=False)).choices[0]
    assert calls_of(one.message) == [("now", {})] and one.finish_reason == "tool_calls"


def test_no_call_is_plain_text(bird):
    for more in ({}, {"tools": openai.omit}, {"tool_choice": "none"}, {"tools": []}):
        choice = bird.chat.completions.create(**ask("plain", **more)).choices[0]
        assert choice.message.content == TEXTS["plain"] and choice.finish_reason == "stop"
        assert choice.message.tool_calls is None
    # without tools nothing is taken for a call; what is no call is content, as a whole
    choice = bird.chat.completions.create(**ask("weather", tool_choice="none")).choices[0]
    assert choice.message.content == CALL and choice.finish_reason == "stop"
    choice = bird.chat.completions.create(**ask("broken")).choices[0]
    assert choice.message.tool_calls is None and "<tool_call>\n" + '{"name": "now"' in choice.message.content
    assert choice.message.content.endswith("{nonsense}}\n</tool_call> indeed") and choice.finish_reason == "stop"


def test_chunks_are_what_accumulators_expect(bird):
    chunks = list(bird.chat.completions.create(**ask("both", stream=True, stream_options={"include_usage": True})))
    deltas = [c.choices[0].delta for c in chunks if c.choices]
    assert deltas[0].role == "assistant" and deltas[0].content == ""
    assert "".join(d.content or "" for d in deltas) == "One moment."
    seen = {}
    for d in deltas:
        for c in d.tool_calls or []:
            if c.id:  # the first of a call: all but the arguments
                assert c.index == len(seen) and c.type == "function" and c.function.arguments == ""
                seen[c.index] = [c.function.name, ""]
            else:
                assert c.function.name is None and c.type is None
                seen[c.index][1] += c.function.arguments
    assert seen == {0: ["now", "{}"], 1: ["get_weather", '{"city": "Rio"}']}
    ends = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert ends[-1] == "tool_calls" and not any(ends[:-1])
    assert not deltas[-1].model_dump(exclude_none=True)
    assert chunks[-1].usage.completion_tokens > 5


@pytest.mark.parametrize("cue", ["plain", "weather", "both", "think", "thinkcall", "open"])
def test_the_streams_helper_builds_the_same_message(bird, cue):
    whole = bird.chat.completions.create(**ask(cue)).choices[0]
    with bird.chat.completions.stream(**ask(cue)) as stream:
        events = list(stream)
        final = stream.get_final_completion().choices[0]
    assert final.finish_reason == whole.finish_reason
    assert (final.message.content or None) == (whole.message.content or None)
    assert calls_of(final.message) == calls_of(whole.message)
    assert (final.message.model_extra.get("reasoning_content") ==
            whole.message.model_extra.get("reasoning_content"))
    done = [e for e in events if e.type == "tool_calls.function.arguments.done"]
    assert [(e.name, e.index) for e in done] == [(n, i) for i, (n, _) in enumerate(calls_of(whole.message))]


def test_arguments_come_while_they_are_written(bird):
    with bird.chat.completions.stream(**ask("weather")) as stream:
        parts = [e.arguments_delta for e in stream if e.type == "tool_calls.function.arguments.delta"]
    parts = [p for p in parts if p]
    assert len(parts) > 3 and json.loads("".join(parts)) == {"city": "São Paulo", "days": 2}


def test_a_round_with_a_tool(bird, parrots):
    messages = [{"role": "user", "content": "Please #weather"}]
    first = bird.chat.completions.create(model="parrot", messages=messages, tools=TOOLS).choices[0].message
    messages += [first, {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "21 degrees"}]
    second = bird.chat.completions.create(model="parrot", messages=messages, tools=TOOLS).choices[0]
    assert second.message.content == TEXTS["after"] and second.finish_reason == "stop"
    wire = [m if isinstance(m, dict) else m.model_dump(exclude_none=True) for m in messages]
    status, shown = parrots.post("/apply-template", {"messages": wire, "tools": TOOLS})
    assert status == 200
    assert '{"name": "get_weather", "arguments": {"city": "S\\u00e3o Paulo", "days": 2}}' in shown["prompt"] or \
        '{"name": "get_weather", "arguments": {"city": "São Paulo", "days": 2}}' in shown["prompt"]
    assert "<|im_start|>tool\n21 degrees<|im_end|>" in shown["prompt"]
    assert shown["prompt"].count('"name": "now"') == 1  # the list of tools
    assert "now" not in parrots.post("/apply-template", {"messages": wire, "tools": TOOLS, "tool_choice": "none"})[1]["prompt"]


def test_several_choices_have_calls_of_their_own(bird):
    r = bird.chat.completions.create(**ask("weather", n=3, temperature=1))
    assert [calls_of(c.message) for c in r.choices] == [calls_of(r.choices[0].message)] * 3
    assert len({c.message.tool_calls[0].id for c in r.choices}) == 3


def test_functions_as_they_were_before_tools(bird):
    functions = [t["function"] for t in TOOLS]
    r = bird.chat.completions.create(**ask("weather", tools=openai.omit, functions=functions, function_call="auto")).choices[0]
    assert r.finish_reason == "function_call" and r.message.tool_calls is None
    assert r.message.function_call.name == "get_weather"
    stream = bird.chat.completions.create(**ask("both", tools=openai.omit, functions=functions, stream=True))
    deltas = [c.choices[0].delta.function_call for c in stream if c.choices[0].delta.function_call]
    assert [d.name for d in deltas if d.name] == ["now"] and "".join(d.arguments for d in deltas) == "{}"
    messages = [{"role": "user", "content": "Please #weather"},
                {"role": "assistant", "content": None, "function_call": {"name": "now", "arguments": "{}"}},
                {"role": "function", "name": "now", "content": "noon"}]
    r = bird.chat.completions.create(model="parrot", messages=messages, functions=functions)
    assert r.choices[0].message.content == TEXTS["after"]


def test_reasoning_is_told_from_content(bird):
    r = bird.chat.completions.create(**ask("think", tools=openai.omit))
    message = r.choices[0].message
    assert message.content == "So it says yes." and message.reasoning_content == "The bird wonders: <tool?"
    assert 0 < r.usage.completion_tokens_details.reasoning_tokens < r.usage.completion_tokens
    message = bird.chat.completions.create(**ask("open")).choices[0].message
    assert message.content == "Done with it." and message.reasoning_content == "I am still wondering."
    choice = bird.chat.completions.create(**ask("thinkcall")).choices[0]
    assert calls_of(choice.message) == [("now", {})] and choice.message.content is None
    assert choice.message.reasoning_content == "He wants the time."
    cut = bird.chat.completions.create(**ask("open", max_tokens=3)).choices[0]
    assert cut.message.content is None and cut.finish_reason == "length" and cut.message.reasoning_content
    message = bird.chat.completions.create(**ask("think", extra_body={"reasoning_format": "none"})).choices[0].message
    assert message.content == TEXTS["think"] and "reasoning_content" not in message.model_extra
    message = bird.chat.completions.create(**ask("think", extra_body={"include_reasoning": False})).choices[0].message
    assert message.content == "So it says yes." and "reasoning_content" not in message.model_extra


def many(n):
    return [{"type": "function", "function": {"name": f"f{i}"}} for i in range(n)]


@pytest.mark.parametrize("body, named", [
    ({"tools": many(129)}, "tools"), ({"tools": "now"}, "tools"), ({"tools": [1]}, "tools[0]"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"), ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    ({"tools": [{"type": "function", "function": {"name": "a", "parameters": 1}}]}, "tools[0].function.parameters"),
    ({"tools": TOOLS + TOOLS[:1]}, "tools[2].function.name"),
    ({"tools": TOOLS, "tool_choice": "always"}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "nobody"}}}, "tool_choice"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": "required", "guided_regex": "a"}, "guided_regex"),
    ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}}, "allowed_tools"),
    ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [
        {"type": "function", "function": {"name": "nobody"}}]}}}, "nobody"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "array", "uniqueItems": True}}}],
      "tool_choice": "required"}, "uniqueItems"),
    ({"tools": TOOLS, "functions": [{"name": "f"}]}, "functions"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"id": 1, "function": {"name": "x"}}]}]}, "messages[0].tool_calls[0].id"),
    ({"messages": [{"role": "assistant", "tool_calls": {}}]}, "messages[0].tool_calls"),
    ({"messages": [{"role": "tool", "tool_call_id": 7, "content": "x"}]}, "messages[0].tool_call_id"),
    ({"documents": [{"text": "x"}]}, "documents"), ({"reasoning_format": "x"}, "reasoning_format"),
])
def test_what_is_wrong_with_tools_is_named(parrots, body, named):
    status, answer = parrots.post("/v1/chat/completions", {"model": "parrot", "messages": [{"role": "user", "content": "x"}], **body})
    assert status == 400 and named in answer["error"]["message"], answer


def test_many_tools_and_odd_histories_are_fine(parrots):
    history = [{"role": "user", "content": "a"},
               {"role": "assistant", "content": None, "tool_calls": [{"id": "x", "type": "function", "function": {"name": "f1", "arguments": ""}},
                                                                   {"id": "y", "type": "function", "function": {"name": "f2", "arguments": "not JSON"}}]},
               {"role": "tool", "tool_call_id": "x", "content": [{"type": "text", "text": "1"}, {"type": "text", "text": "2"}]},
               {"role": "assistant", "content": "b", "tool_calls": []}, {"role": "user", "content": "#plain"}]
    status, answer = parrots.post("/v1/chat/completions", {"messages": history, "tools": many(128)})
    assert status == 200 and answer["choices"][0]["message"]["content"] == TEXTS["plain"]
    prompt = parrots.post("/apply-template", {"messages": history, "tools": many(1)})[1]["prompt"]
    assert '"arguments": {}' in prompt and '"arguments": "not JSON"' in prompt and "tool\n1\n2<" in prompt


def test_markers_that_are_special_tokens(folder):
    """Mistral's: hidden in plain output, and seen all the same where calls are looked for; ids of nine characters."""
    template = ("{%- if tools %}[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}{% for m in messages %}"
                "{% if m.tool_calls %}{% for c in m.tool_calls %}{% if c.id | length != 9 %}{{ raise_exception('ids have 9') }}"
                "{% endif %}[TOOL_CALLS]{{ c.function.name }}[ARGS]{{ c.function.arguments | tojson }}{% endfor %}"
                "{% else %}[{{ m.role }}]{{ m.content }}{{ m.tool_call_id }}{% endif %}{% endfor %}" + parrot.CUE)
    texts = {"call": 'Wait.[TOOL_CALLS]now[ARGS]{"zone": "UTC"}', "after": "Noon.", "plain": "No.[INST]Yes.", "think": "[THINK]Hm.[/THINK]Well."}
    model = parrot.make(os.path.join(folder, "mistral"), texts, template=template,
                        special=["[TOOL_CALLS]", "[ARGS]", "[INST]", "[THINK]", "[/THINK]"])
    with Server(model, {}, ["--threads", "2"], name="parrot") as s:
        bird = openai.OpenAI(base_url=s.url + "/v1", api_key="none", max_retries=0)
        choice = bird.chat.completions.create(**ask("call")).choices[0]
        assert choice.message.content == "Wait." and calls_of(choice.message) == [("now", {"zone": "UTC"})]
        assert len(choice.message.tool_calls[0].id) == 9
        assert bird.chat.completions.create(**ask("call", tools=openai.omit)).choices[0].message.content == 'Wait.now{"zone": "UTC"}'
        assert bird.chat.completions.create(**ask("plain")).choices[0].message.content == "No.Yes."
        message = bird.chat.completions.create(**ask("think")).choices[0].message
        assert message.content == "Well." and message.reasoning_content == "Hm."
        history = [{"role": "user", "content": "x"},
                   {"role": "assistant", "tool_calls": [{"id": "call_abcdefghijKLMNOPQRS", "type": "function", "function": {"name": "now", "arguments": "{}"}}]},
                   {"role": "tool", "tool_call_id": "call_abcdefghijKLMNOPQRS", "content": "12"}]
        r = bird.chat.completions.create(model="parrot", messages=history, tools=TOOLS)
        assert r.choices[0].message.content == "Noon."
        assert "[tool]12KLMNOPQRS" in s.post("/apply-template", {"messages": history})[1]["prompt"]


def test_functions_as_a_text(folder):
    """Firefunction's: the template joins the functions, as JSON, and the time to its other texts, whether there are tools or not."""
    template = ("{% set rules = 'Calls: functools[{\"name\": NAME}]\nFunctions: ' + functions + '\nToday is ' + datetime + '.' %}{{ rules }}"
                "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls %}"
                "{{ ' functools[{' + c.function.name + c.function.arguments + '}]' }}{% endfor %}<|im_end|>\n{% endfor %}" + parrot.CUE)
    texts = {"call": 'functools[{"name": "now", "arguments": {"zone": "UTC"}}, {"name": "add", "arguments": {"a": 1}}]', "after": "Noon.", "plain": "No."}
    model = parrot.make(os.path.join(folder, "fire"), texts, template=template)
    with Server(model, {}, ["--threads", "2"], name="parrot") as s:
        bird = openai.OpenAI(base_url=s.url + "/v1", api_key="none", max_retries=0)
        message = bird.chat.completions.create(**ask("call")).choices[0].message
        assert not message.content and calls_of(message) == [("now", {"zone": "UTC"}), ("add", {"a": 1})]
        assert bird.chat.completions.create(**ask("plain", tools=openai.omit)).choices[0].message.content == "No."
        history = [{"role": "user", "content": "x"},
                   {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "now", "arguments": "{}"}}]},
                   {"role": "tool", "tool_call_id": "1", "content": "12"}]
        body = {"messages": history, "tools": TOOLS}
        prompt = s.post("/apply-template", body)[1]["prompt"]
        listed, rest = prompt.split("Functions: ")[1].split("\nToday is ")
        assert json.loads(listed) == [t["function"] for t in TOOLS] and " functools[{now{}}]" in rest
        assert abs(time.time() - calendar.timegm(time.strptime(rest.split(".")[0], "%Y-%m-%d %H:%M:%S UTC"))) < 60
        assert "Functions: []\nToday" in s.post("/apply-template", {"messages": history})[1]["prompt"]
        mine = {**body, "chat_template_kwargs": {"functions": "none", "datetime": "Monday"}}
        assert "Functions: none\nToday is Monday." in s.post("/apply-template", mine)[1]["prompt"]


def test_text_in_the_middle(folder):
    """suffix: the model's own tokens for it, each order; what such models write behind the text ends it."""
    qwen = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>"]
    for name, marks, texts in (("qwen", qwen, {qwen[2]: "return a + b<|fim_pad|>no more"}),
                               ("codestral", ["[PREFIX]", "[SUFFIX]"], {"": "return a + b"}),  # the beginning comes last
                               ("codellama", ["▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"], {"▁<MID>": "return a + b▁<EOT>"})):
        model = parrot.make(os.path.join(folder, name), texts, special=marks)
        with Server(model, {}, ["--threads", "2"], name="parrot") as s:
            ask = {"prompt": "def add(a, b):\n", "suffix": "\n\nprint(add(1, 2))", "max_tokens": 30, "return_token_ids": True}
            status, answer = s.post("/v1/completions", ask)
            ids = answer["choices"][0]["prompt_token_ids"]
            before, after = (s.post("/tokenize", {"content": t})[1]["tokens"] for t in (ask["prompt"], ask["suffix"]))
            m = [s.post("/tokenize", {"content": t})[1]["tokens"][0] for t in marks]
            assert status == 200 and answer["choices"][0]["text"] == "return a + b"
            assert ids == ([m[0], *before, m[1], *after, m[2]] if len(marks) > 2 else [m[1], *after, m[0], *before])
            assert answer["choices"][0]["finish_reason"] == "stop"
    model = parrot.make(os.path.join(folder, "none"), {"": "x y z"})
    with Server(model, {}, ["--threads", "2"], name="parrot") as s:
        status, answer = s.post("/v1/completions", ask)
        assert status == 400 and answer["error"]["param"] == "suffix"
        assert s.post("/v1/completions", {**ask, "suffix": ""})[0] == 200
        assert s.post("/v1/completions", {**ask, "suffix": 1})[0] == 400


def test_llama_calls_without_a_marker(folder):
    texts = {"call": '{"name": "get_weather", "parameters": {"city": "Oslo"}}', "json": '{"name": "Ada", "born": 1815}',
             "tag": '<|python_tag|>{"type": "function", "name" : "now", "parameters" : {}}'}
    template = "{% if tools %}Environment: ipython {{ tools | tojson }}{% endif %}" + parrot.CUE
    model = parrot.make(os.path.join(folder, "llama"), texts, template=template, special=["<|python_tag|>"])
    with Server(model, {}, ["--threads", "2"], name="parrot") as s:
        bird = openai.OpenAI(base_url=s.url + "/v1", api_key="none", max_retries=0)
        assert calls_of(bird.chat.completions.create(**ask("call")).choices[0].message) == [("get_weather", {"city": "Oslo"})]
        assert calls_of(bird.chat.completions.create(**ask("tag")).choices[0].message) == [("now", {})]
        choice = bird.chat.completions.create(**ask("json")).choices[0]
        assert choice.message.content == texts["json"] and choice.finish_reason == "stop"
        text = "".join(c.choices[0].delta.content or "" for c in bird.chat.completions.create(**ask("json", stream=True)))
        assert text == texts["json"]


def test_a_template_that_takes_one_call_a_message(folder):
    """As Llama 3's: several calls of one turn come one after the other, each with its result."""
    template = ("{# tools #}{% for m in messages %}{% if m.tool_calls %}{% if m.tool_calls | length != 1 %}{{ raise_exception('one call') }}"
                "{% endif %}[{{ m.content }}{{ m.tool_calls[0].function.name }}]{% else %}({{ m.content }}){% endif %}{% endfor %}")
    model = parrot.make(os.path.join(folder, "single"), {"": "x y z"}, template=template)
    calls = [{"id": i, "type": "function", "function": {"name": "f" + i, "arguments": "{}"}} for i in "abc"]
    messages = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "t", "tool_calls": calls},
                *({"role": "tool", "tool_call_id": i, "content": i} for i in "cab"), {"role": "user", "content": "v"}]
    with Server(model, {}, ["--threads", "2"], name="parrot") as s:
        assert s.post("/apply-template", {"messages": messages})[1]["prompt"] == "(u)[tfa](a)[fb](b)[fc](c)(v)"
        assert s.post("/apply-template", {"messages": messages[:3]})[1]["prompt"] == "(u)[tfa](c)[fb][fc]"
    # DeepSeek's tells calls by a content that is null; others fail where it is
    for test, shown in (("message['role'] == 'assistant' and message['content'] is none", "(u)CALL"), ("message['content'] == ''", "(u)CALL")):
        template = ("{# tools #}{% for message in messages %}{% if " + test + " %}CALL{% else %}({{ message['content'] + '' }}){% endif %}{% endfor %}")
        model = parrot.make(os.path.join(folder, "null" + shown[-1] + str(len(test))), {"": "x y z"}, template=template)
        with Server(model, {}, ["--threads", "2"], name="parrot") as s:
            null = [messages[0], {"role": "assistant", "content": None, "tool_calls": calls[:1]}]
            assert s.post("/apply-template", {"messages": null})[1]["prompt"] == shown


def test_a_templates_failure_names_no_folder(folder):
    model = parrot.make(os.path.join(folder, "fails"), {"": "x y z"}, template="{{ messages[0].content + 1 }}")
    with Server(model, {}, ["--threads", "2"], name="parrot") as s:
        status, answer = s.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})
        assert status == 400 and "tokenizer_config.json: line 1" in answer["error"]["message"]
        assert "/" not in answer["error"]["message"]


def test_an_answer_goes_on_inside_of_its_thought(bird):
    ask = {"model": "parrot", "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "<think>so \n"}],
           "extra_body": {"continue_final_message": True, "add_generation_prompt": False}}
    message = bird.chat.completions.create(**ask).choices[0].message
    assert message.reasoning_content == "I am still wondering." and message.content == "Done with it."


def test_a_template_that_knows_no_tools(folder):
    """Tools are described in the system message, results come as the user's; turns alternate as such templates want."""
    template = ("{% for m in messages %}{% if m.role not in ['system', 'user', 'assistant'] or (loop.index0 > 0 and "
                "m.role == messages[loop.index0 - 1].role) %}{{ raise_exception('roles must alternate') }}{% endif %}"
                "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
                "<|cue_{{ messages[-1].content.split('#')[-1] if '#' in messages[-1].content else 'after' }}|>")
    model = parrot.make(os.path.join(folder, "plain"), {"call": TEXTS["weather"], "after": TEXTS["after"]}, template=template)
    with Server(model, {}, ["--threads", "2"], name="parrot") as s:
        bird = openai.OpenAI(base_url=s.url + "/v1", api_key="none", max_retries=0)
        message = bird.chat.completions.create(**ask("call")).choices[0].message
        assert calls_of(message) == [("get_weather", {"city": "São Paulo", "days": 2})]
        history = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Please #call"},
                   message.model_dump(exclude_none=True),
                   {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "21"},
                   {"role": "tool", "tool_call_id": "other", "content": "22"}, {"role": "user", "content": "Well?"}]
        r = bird.chat.completions.create(model="parrot", messages=history, tools=TOOLS)
        assert r.choices[0].message.content == TEXTS["after"]
        prompt = s.post("/apply-template", {"messages": history, "tools": TOOLS})[1]["prompt"]
        assert prompt.startswith("<|im_start|>system\nBe kind.\n\n") and '"name":"get_weather"' in prompt
        assert "<tool_response>\n21\n</tool_response>\n<tool_response>\n22\n</tool_response>\nWell?<|im_end|>" in prompt
    # and one that takes no system message
    model = parrot.make(os.path.join(folder, "nosystem"), {"call": TEXTS["weather"]},
                        template="{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
                                 "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}<|cue_call|>")
    with Server(model, {}, ["--threads", "2"], name="parrot") as s:
        status, answer = s.post("/v1/chat/completions", ask("call"))
        assert status == 200 and answer["choices"][0]["finish_reason"] == "tool_calls"
        assert "no system" in s.post("/v1/chat/completions", {"messages": [{"role": "system", "content": "x"}]})[1]["error"]["message"]


class Forecast(pydantic.BaseModel):
    """Weather of a city."""
    city: Literal["Paris", "Rio"]
    days: Literal[1, 2, 3]


class Clock(pydantic.BaseModel):
    zone: Literal["UTC", "local"]


FORCED = [openai.pydantic_function_tool(Forecast), openai.pydantic_function_tool(Clock)]


@pytest.mark.parametrize("choice, names", [("required", {"Forecast", "Clock"}),
                                           ({"type": "function", "function": {"name": "Clock"}}, {"Clock"})])
def test_calls_can_be_forced(bird, choice, names):
    """Whatever it would say, what comes is a call that fits the schema."""
    for seed in range(3):
        ask = dict(model="parrot", messages=[{"role": "user", "content": "x"}], tools=FORCED, tool_choice=choice, seed=seed,
                   max_tokens=300, temperature=1.5, parallel_tool_calls=seed > 0)
        r = bird.chat.completions.parse(**ask).choices[0]
        assert r.finish_reason == "tool_calls" and r.message.content is None
        assert {c.function.name for c in r.message.tool_calls} <= names and (seed or len(r.message.tool_calls) == 1)
        assert all(isinstance(c.function.parsed_arguments, (Forecast, Clock)) for c in r.message.tool_calls)
        with bird.chat.completions.stream(**ask) as stream:
            final = stream.get_final_completion().choices[0]
        assert calls_of(final.message) == calls_of(r.message) and final.finish_reason == "tool_calls"
    legacy = bird.chat.completions.create(model="parrot", messages=[{"role": "user", "content": "x"}], max_tokens=300,
                                            functions=[t["function"] for t in FORCED], function_call={"name": "Clock"})
    assert legacy.choices[0].finish_reason == "function_call"
    Clock.model_validate_json(legacy.choices[0].message.function_call.arguments)


def test_only_allowed_tools_are_called_and_shown(bird, parrots):
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "Clock"}}]}}
    ask = {"messages": [{"role": "user", "content": "x"}], "tools": FORCED, "tool_choice": allowed, "max_tokens": 300}
    for seed in range(3):
        message = bird.chat.completions.create(model="parrot", seed=seed, **ask).choices[0].message
        assert {c.function.name for c in message.tool_calls} == {"Clock"}
    prompt = parrots.post("/apply-template", ask)[1]["prompt"]
    assert "Clock" in prompt and "Forecast" not in prompt


def test_a_callers_own_grammar_is_about_markers_too(bird):
    """guided_* and grammar say what the model writes from its first token on; what that is, is told afterwards."""
    ask = {"model": "parrot", "messages": [{"role": "user", "content": "x"}], "tools": TOOLS, "max_tokens": 300}
    text = '<think>hm</think>So. <tool_call>{"name": "now", "arguments": {"zone": [1, 2]}}</tool_call>'
    for extra in ({"guided_choice": [text]}, {"grammar": "root ::= " + json.dumps(text)}, {"structured_outputs": {"choice": [text]}}):
        choice = bird.chat.completions.create(**ask, extra_body=extra).choices[0]
        assert calls_of(choice.message) == [("now", {"zone": [1, 2]})] and choice.finish_reason == "tool_calls"
        assert choice.message.content == "So." and choice.message.reasoning_content == "hm"
    opened = {**ask, "messages": [{"role": "user", "content": "#open"}]}
    message = bird.chat.completions.create(**opened, extra_body={"guided_choice": ["a</think>b"]}).choices[0].message
    assert message.reasoning_content == "a" and message.content == "b"


def test_a_voice_says_how_it_calls(tmp_path):
    """adapter.yaml's tool_format goes before the template; one that isn't known is named."""
    adapters = {}
    for name in ("llama", "nonsense"):
        adapters[name] = shutil.copytree(os.path.join(DATA, "adapters", "llama", "qv_r4"), str(tmp_path / name))
        with open(os.path.join(adapters[name], "adapter.yaml"), "w") as f:
            f.write(f"tool_format: {name}\n")
    ask = {"messages": [{"role": "user", "content": "x"}], "tools": many(1), "tool_choice": "required", "max_tokens": 200,
           "parallel_tool_calls": False, "return_token_ids": True, "temperature": 0}
    with Server(os.path.join(DATA, "models", "llama", "f32"), adapters, ["--threads", "2"], name="tiny") as s:
        for voice, begins in (("tiny", "<tool_call>"), ("llama", '{"name": "f0", "parameters": {')):
            status, answer = s.post("/v1/chat/completions", {**ask, "model": voice})
            assert status == 200 and answer["choices"][0]["finish_reason"] == "tool_calls", answer
            assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "f0"
            text = s.post("/detokenize", {"tokens": answer["choices"][0]["token_ids"]})[1]["content"]
            assert text.startswith(begins)
        status, answer = s.post("/v1/chat/completions", {**ask, "model": "nonsense"})
        assert status == 400 and "nonsense" in answer["error"]["message"]
        assert s.post("/v1/chat/completions", {"model": "nonsense", "messages": ask["messages"], "max_tokens": 1})[0] == 200


STRICT = [{"type": "function", "function": {"name": "get_weather", "strict": True, "parameters": {
    "type": "object", "properties": {"city": {"enum": ["Rio", "Paris"]}, "days": {"enum": [1, 2]}}, "required": ["city", "days"],
    "additionalProperties": False}}}, TOOLS[1]]


@pytest.mark.parametrize("parallel", [True, False])
def test_strict_holds_where_calls_are_free(bird, parrots, parallel):
    """The parrot says what it likes, but for calls that a strict tool doesn't allow."""
    def fits(name, arguments):
        return name == "now" or (set(arguments) == {"city", "days"} and arguments["city"] in ("Rio", "Paris") and arguments["days"] in (1, 2))

    for cue, content in (("plain", TEXTS["plain"]), ("weather", None), ("think", "So it says yes."), ("thinkcall", None)):
        body = {**ask(cue), "tools": STRICT, "parallel_tool_calls": parallel, "max_tokens": 200, "temperature": 0}
        r = bird.chat.completions.create(**body).choices[0]
        calls = calls_of(r.message)
        assert all(fits(*c) for c in calls) and (parallel or len(calls) <= 1), calls
        assert bool(calls) == (cue in ("weather", "thinkcall")) == (r.finish_reason == "tool_calls"), r
        assert r.message.content == content or (calls and parallel), r  # behind a call that it didn't mean it's lost
        with bird.chat.completions.stream(**{**body, "tools": [{**t, "function": {**t["function"], "strict": True}} for t in STRICT]}) as stream:
            final = stream.get_final_completion().choices[0].message
        assert all(fits(*c) for c in calls_of(final))
    for seed in range(4):
        r = bird.chat.completions.create(**{**ask("weather"), "tools": STRICT, "seed": seed, "temperature": 3, "max_tokens": 150})
        if r.choices[0].finish_reason == "tool_calls":
            assert all(fits(*c) for c in calls_of(r.choices[0].message))
    # of the other APIs: the same tools, the same guarantee
    f = STRICT[0]["function"]
    r = bird.responses.create(model="parrot", input="Please #weather", store=False, temperature=0, max_output_tokens=200,
                              tools=[{"type": "function", **f}])
    assert fits("get_weather", json.loads(r.output[0].arguments)), r.output
    status, r = parrots.post("/v1/messages", {"model": "parrot", "max_tokens": 200, "temperature": 0,
                                              "messages": [{"role": "user", "content": "Please #weather"}],
                                              "tools": [{"name": f["name"], "strict": True, "input_schema": f["parameters"]}]})
    assert status == 200 and fits("get_weather", r["content"][0]["input"]), r


def test_what_strict_cant_keep_is_named(parrots):
    odd = {"type": "function", "function": {"name": "odd", "strict": True, "parameters": {"type": "object", "sideways": 1}}}
    status, answer = parrots.post("/v1/chat/completions", {**ask("plain"), "tools": [TOOLS[1], odd]})
    assert status == 400 and answer["error"]["param"] == "tools" and "odd: " in answer["error"]["message"], answer
    status, answer = parrots.post("/v1/chat/completions", {**ask("plain"), "tools": STRICT, "guided_regex": "a+"})
    assert status == 400 and answer["error"]["param"] == "guided_regex", answer
    odd["function"]["strict"] = "yes"
    status, answer = parrots.post("/v1/chat/completions", {**ask("plain"), "tools": [odd]})
    assert status == 400 and "strict" in answer["error"]["message"], answer
    odd["function"]["strict"] = False
    assert parrots.post("/v1/chat/completions", {**ask("plain"), "tools": [odd], "max_tokens": 2})[0] == 200


SCHEMA = {"type": "object", "properties": {"name": {"const": "get_weather"}, "arguments": {
    "type": "object", "properties": {"city": {"type": "string"}, "days": {"const": 1}}, "required": ["city", "days"]}},
    "required": ["name", "arguments"]}
TAG = {"begin": "<tool_call>\n", "end": "\n</tool_call>"}


@pytest.mark.parametrize("extra", [
    {"response_format": {"type": "structural_tag", "triggers": ["<tool_call>"], "structures": [{**TAG, "schema": SCHEMA}]}},
    {"structured_outputs": {"structural_tag": json.dumps({"type": "structural_tag", "triggers": ["<tool_", "<oth"], "structures": [
        {**TAG, "schema": SCHEMA}, {"begin": "<other>", "schema": {}, "end": ""}]})}},
    {"structured_outputs": {"structural_tag": {"type": "structural_tag", "format": {
        "type": "triggered_tags", "triggers": ["<tool_call>"], "stop_after_first": True,
        "tags": [{"type": "tag", **TAG, "content": {"type": "json_schema", "json_schema": SCHEMA}}]}}}},
    {"response_format": {"type": "structural_tag", "format": {"type": "sequence", "elements": [
        {"type": "regex", "pattern": " ?"}, {"type": "or", "elements": [
            {"type": "tag", **TAG, "content": {"type": "json_schema", "json_schema": SCHEMA}}, {"type": "const_string", "value": "no"}]}]}}},
])
def test_structural_tags_hold_inside_of_free_text(bird, extra):
    def said(cue):
        return bird.chat.completions.create(model="parrot", messages=[{"role": "user", "content": "Please #" + cue}], temperature=0,
                                            max_tokens=120, extra_body={**extra, "reasoning_format": "none"}).choices[0].message.content

    text = said("weather")
    inner = text[text.index("<tool_call>\n") + len("<tool_call>\n"):text.index("\n</tool_call>")]
    assert json.loads(inner) == {"name": "get_weather", "arguments": {"city": "São Paulo", "days": 1}}
    if "sequence" not in json.dumps(extra):
        assert said("plain") == TEXTS["plain"] and said("think") == TEXTS["think"]


def in_triggers(depth):
    """A tag that begins with each of 64 triggers, in another such tag, and so on: 64 ** depth of them."""
    content = {"type": "any_text"}
    for _ in range(depth):
        content = {"type": "triggered_tags", "triggers": ["<a>"] * 64, "tags": [{"begin": "<a>", "content": content, "end": "</a>"}]}
    return content


@pytest.mark.parametrize("value, word", [
    ({"triggers": ["<a>"]}, "structures"), ({"structures": [{**TAG, "schema": {}}]}, "triggers"),
    ({"structures": [{**TAG, "schema": {}}], "triggers": ["<b>"]}, "begin"),
    ({"structures": [{**TAG, "schema": {"sideways": 1}}], "triggers": ["<tool_call>"]}, "sideways"),
    ({"format": {"type": "qwen_xml_parameter"}}, "qwen_xml_parameter"), ({"format": {"type": "tag", **TAG}}, "format"),
    ({"format": {"type": "any_text", "excludes": "<b>"}}, "excludes"), ({"format": in_triggers(6)}, "triggers make more than"),
    ({"format": json.loads('{"type": "sequence", "elements": [' * 20 + '{"type": "any_text"}' + "]}" * 20)}, "nested")])
def test_structural_tags_are_refused_by_name(parrots, value, word):
    status, answer = parrots.post("/v1/chat/completions", {**ask("plain"), "tools": None, "response_format": {"type": "structural_tag", **value}})
    assert status == 400 and word in answer["error"]["message"], answer


def test_an_answer_in_a_form_or_a_call(bird):
    """response_format beside tools: either comes."""
    kinds = set()
    for seed in range(8):
        r = bird.chat.completions.parse(model="parrot", messages=[{"role": "user", "content": "x"}], tools=FORCED, seed=seed,
                                          response_format=Clock, max_tokens=300, temperature=2).choices[0]
        kinds.add(r.finish_reason)
        assert isinstance(r.message.parsed if r.finish_reason == "stop" else r.message.tool_calls[0].function.parsed_arguments,
                          (Clock, Forecast))
    assert kinds == {"stop", "tool_calls"}


OTHER = {
    "pythonic": ("func_name1(", [], "[get_weather(city='São Paulo', days=2), now()]"),
    "olmo3": ("<function_calls>", [], '<function_calls>\nget_weather(city="São Paulo", days=2)\nnow()\n</function_calls>'),
    "gemma": ("<start_function_call>", [],
              "<start_function_call>call:get_weather{city:<escape>São Paulo<escape>,days:2}<end_function_call>"
              "<start_function_call>call:now{}<end_function_call>"),
    "glm": ("<arg_key>", [], "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>São Paulo</arg_value>\n<arg_key>days</arg_key>\n"
                             "<arg_value>2</arg_value>\n</tool_call><tool_call>now</tool_call>"),
    "command": ("<|START_ACTION|>", ["<|START_ACTION|>", "<|END_ACTION|>"],
                '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "get_weather", "parameters": {"city": "São Paulo", "days": 2}},\n'
                '    {"tool_call_id": "1", "tool_name": "now", "parameters": {}}\n]<|END_ACTION|>'),
    "minicpm": ('<function name="', [], '<function name="get_weather"><param name="city">São Paulo</param><param name="days">2</param></function>\n'
                                        '<function name="now"></function>'),
    "functionary": (">>>all", ["|>>>"], 'get_weather\n{"city": "São Paulo", "days": 2}>>>now\n{}'),
}


@pytest.mark.parametrize("name", OTHER)
def test_formats_that_are_no_plain_json(tmp_path, name):
    """Read whole and streamed as what they mean; forced, and with strict tools, in the same format."""
    evidence, special, text = OTHER[name]
    opened = "|>>>" if name == "functionary" else ""  # by the prompt, as its own template does
    template = "{# tools " + evidence + " #}{{ messages[0].content }}" + opened
    model = parrot.make(str(tmp_path / name), {opened: text}, template=template, special=special)
    with Server(model, {}, ["--threads", "2"], name="parrot") as s:
        bird = openai.OpenAI(base_url=s.url + "/v1", api_key="none", max_retries=0)
        body = {"model": "parrot", "messages": [{"role": "user", "content": "x\n"}], "tools": TOOLS, "temperature": 0, "max_tokens": 300}
        want = [("get_weather", {"city": "São Paulo", "days": 2}), ("now", {})]
        r = bird.chat.completions.create(**body).choices[0]
        assert calls_of(r.message) == want and r.finish_reason == "tool_calls" and r.message.content is None
        with bird.chat.completions.stream(**body) as stream:
            assert calls_of(stream.get_final_completion().choices[0].message) == want
        forced = bird.chat.completions.create(**{**body, "tools": FORCED, "tool_choice": "required", "parallel_tool_calls": False})
        assert isinstance(forced.choices[0].message.tool_calls[0].function.arguments, str)
        for c in forced.choices[0].message.tool_calls:
            (Clock if c.function.name == "Clock" else Forecast).model_validate_json(c.function.arguments)
        r = bird.chat.completions.create(**{**body, "tools": STRICT, "parallel_tool_calls": False}).choices[0]
        assert r.finish_reason == "tool_calls", r
        (name, arguments), = calls_of(r.message)
        assert name == "now" or (arguments["city"] in ("Rio", "Paris") and arguments["days"] in (1, 2))


def test_reasoning_goes_back_under_either_name(tmp_path):
    template = "{% for m in messages %}<{{ m.reasoning_content }}>{{ m.content }}{% endfor %}"
    with Server(parrot.make(str(tmp_path / "model"), {"": "x"}, template=template), {}, ["--threads", "1"], name="parrot") as s:
        def prompt(**more):
            return s.post("/apply-template", {"messages": [{"role": "assistant", "content": "y", **more}]})[1]["prompt"]
        assert prompt(reasoning_content="Hm.") == prompt(reasoning="Hm.") == "<Hm.>y" and prompt(reasoning="a", reasoning_content="b") == "<b>y"


def test_calls_may_be_left_as_text(bird):
    """llama-server's parse_tool_calls."""
    whole = bird.chat.completions.create(**ask("weather"), extra_body={"parse_tool_calls": False}).choices[0]
    assert whole.message.content == TEXTS["weather"] and not whole.message.tool_calls and whole.finish_reason == "stop"
    assert calls_of(bird.chat.completions.create(**ask("weather"), extra_body={"parse_tool_calls": True}).choices[0].message)
    forced = bird.chat.completions.create(**{**ask("weather"), "tools": FORCED, "tool_choice": "required", "max_tokens": 300},
                                          extra_body={"parse_tool_calls": False}).choices[0].message
    assert forced.content.startswith("<tool_call>") and not forced.tool_calls


def test_functionary_speaks_to_all(tmp_path):
    """Its prompt ends with a mark, behind which the model says for whom the text is; nobody sees that, with tools or without."""
    template = "{# tools >>>all #}{{ messages[-1].content }}|>>>"
    model = parrot.make(str(tmp_path / "model"), {"|>>>": 'all\nI look. >>> x >>>now\n{"a": 1}>>>all\nDone.'}, template=template, special=["|>>>"])
    with Server(model, {}, ["--threads", "2"], name="parrot") as s:
        bird = openai.OpenAI(base_url=s.url + "/v1", api_key="none", max_retries=0)
        body = {"model": "parrot", "messages": [{"role": "user", "content": "x"}], "temperature": 0, "max_tokens": 300}
        for tools, content, calls in ((TOOLS, "I look. >>> xDone.", [("now", {"a": 1})]), (openai.NOT_GIVEN, 'I look. >>> x >>>now\n{"a": 1}Done.', [])):
            message = bird.chat.completions.create(**body, tools=tools).choices[0].message
            assert message.content == content and calls_of(message) == calls, message
            pieces = [c.choices[0].delta.content or "" for c in bird.chat.completions.create(**body, tools=tools, stream=True) if c.choices]
            assert "".join(pieces) == content
        none = bird.chat.completions.create(**body, tools=TOOLS, tool_choice="none").choices[0].message
        assert none.content == 'I look. >>> x >>>now\n{"a": 1}Done.' and not none.tool_calls
        parsed = bird.chat.completions.parse(**body, response_format=Clock).choices[0].message
        assert isinstance(parsed.parsed, Clock) and not parsed.content.startswith("all")
        for tools in (openai.NOT_GIVEN, TOOLS):
            said = bird.chat.completions.create(**body, tools=tools, extra_body={"guided_choice": ["all"]}).choices[0].message
            assert said.content == "all" and not said.tool_calls


def test_a_forced_call_of_each_format_is_read(folder):
    """Markers that are special tokens come where the format has them, and a thought that the prompt opened ends first."""
    templates = {"mistral": ("[ARGS]", ["[TOOL_CALLS]", "[ARGS]"]), "llama": ("ipython", []), "granite": ("<|tool_call|>", ["<|tool_call|>"]),
                 "thinks": ("<tool_call>", [])}
    for name, (evidence, special) in templates.items():
        end = "{{ '<think>\n' }}" if name == "thinks" else "x"
        template = "{# tools " + evidence + " #}{{ messages[0].content }}" + end
        model = parrot.make(os.path.join(folder, "forced-" + name), {"": "I think so.</think>\n"}, template=template, special=special)
        with Server(model, {}, ["--threads", "2"], name="parrot") as s:
            for choice in ("required", {"type": "function", "function": {"name": "Clock"}}):
                body = {"messages": [{"role": "user", "content": "x"}], "tools": FORCED, "tool_choice": choice, "temperature": 0,
                        "max_tokens": 300, "parallel_tool_calls": False}
                status, answer = s.post("/v1/chat/completions", body)
                assert status == 200, answer
                message = answer["choices"][0]["message"]
                assert answer["choices"][0]["finish_reason"] == "tool_calls" and message["content"] is None
                call = message["tool_calls"][0]["function"]
                (Clock if call["name"] == "Clock" else Forecast).model_validate_json(call["arguments"])
                if name == "thinks":
                    assert message["reasoning_content"] == "I think so."
            body = {"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_object"}, "max_tokens": 300}
            message = s.post("/v1/chat/completions", {**body, "temperature": 0})[1]["choices"][0]["message"]
            assert message.get("reasoning_content") == ("I think so." if name == "thinks" else None)
            assert message["content"].startswith("{")
