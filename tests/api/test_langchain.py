"""LangChain's ChatOpenAI, unchanged but for its base URL."""
import os
from typing import Literal

import pydantic
import pytest

import parrot
from harness import Server
from test_openai_tools import TEXTS

os.environ["LANGSMITH_TRACING"] = "false"
from langchain_core.messages import AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


@tool
def get_weather(city: str, days: int = 1) -> str:
    """Weather of a city."""
    return f"21 degrees in {city}"


@tool
def now() -> str:
    """What time it is."""
    return "noon"


class Forecast(pydantic.BaseModel):
    """A forecast."""
    city: Literal["Paris", "Rio"]
    days: Literal[1, 2, 3]


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    model = parrot.make(str(tmp_path_factory.mktemp("chain") / "model"), TEXTS, template=parrot.HERMES_THINKS)
    with Server(model, {}, ["--threads", "2"], name="parrot") as s:
        yield ChatOpenAI(model="parrot", base_url=s.url + "/v1", api_key="none", max_retries=0, max_tokens=300, temperature=0)


def test_messages_and_stream(chat):
    messages = [SystemMessage("You are a bird."), HumanMessage("Please #plain")]
    whole = chat.invoke(messages)
    assert whole.content == TEXTS["plain"] and whole.usage_metadata["output_tokens"] > 3
    assert whole.response_metadata["finish_reason"] == "stop"
    chunks = list(chat.stream(messages, stream_usage=True))
    assert "".join(c.content for c in chunks) == TEXTS["plain"]
    assert [c.usage_metadata for c in chunks if c.usage_metadata][-1]["output_tokens"] == whole.usage_metadata["output_tokens"]


def test_a_round_with_tools(chat):
    bound = chat.bind_tools([get_weather, now])
    messages = [HumanMessage("Please #both")]
    answer = bound.invoke(messages)
    assert [(c["name"], c["args"]) for c in answer.tool_calls] == [("now", {}), ("get_weather", {"city": "Rio"})]
    assert answer.content == "One moment." and not answer.invalid_tool_calls
    messages.append(answer)
    for call in answer.tool_calls:
        messages.append({"now": now, "get_weather": get_weather}[call["name"]].invoke(call))
    assert isinstance(messages[-1], ToolMessage) and messages[-1].content == "21 degrees in Rio"
    assert bound.invoke(messages).content == TEXTS["after"]


def test_streamed_calls_add_up(chat):
    total = None
    for chunk in chat.bind_tools([get_weather, now]).stream([HumanMessage("Please #both")]):
        assert isinstance(chunk, AIMessageChunk)
        total = chunk if total is None else total + chunk
    assert [(c["name"], c["args"]) for c in total.tool_calls] == [("now", {}), ("get_weather", {"city": "Rio"})]
    assert all(c["id"] for c in total.tool_calls) and total.content == "One moment."


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_structured_output(chat, method):
    r = chat.with_structured_output(Forecast, method=method).invoke([HumanMessage("x")])
    assert isinstance(r, Forecast)
