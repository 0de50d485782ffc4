"""LangChain through Anthropic's and Ollama's APIs, and its embeddings: the real packages, on a model that says given texts."""
import langchain_anthropic
import langchain_ollama
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool

import parrot
from harness import Server
from test_openai_tools import TEXTS


@tool
def get_weather(city: str, days: int = 1) -> str:
    """Weather of a city"""
    return "21"


@pytest.fixture(scope="module")
def parrots(tmp_path_factory):
    model = parrot.make(str(tmp_path_factory.mktemp("parrots") / "model"), TEXTS, template=parrot.HERMES_THINKS)
    with Server(model, {}, ["--threads", "2"], name="parrot") as s:
        yield s


@pytest.fixture(params=["anthropic", "ollama"])
def chat(parrots, request):
    if request.param == "anthropic":
        return langchain_anthropic.ChatAnthropic(model="parrot", base_url=parrots.url, api_key="none", max_retries=0)
    return langchain_ollama.ChatOllama(model="parrot", base_url=parrots.url)


def test_it_chats_and_streams(chat):
    assert chat.invoke("Please #plain").text == TEXTS["plain"]
    pieces = list(chat.stream("Please #plain"))
    assert "".join(p.text for p in pieces) == TEXTS["plain"] and len(pieces) > 2


def test_it_uses_a_tool(chat):
    asked = [HumanMessage("Please #weather")]
    r = chat.bind_tools([get_weather]).invoke(asked)
    assert [(c["name"], c["args"]) for c in r.tool_calls] == [("get_weather", {"city": "São Paulo", "days": 2})]
    again = asked + [r, ToolMessage("21", tool_call_id=r.tool_calls[0]["id"], name="get_weather")]
    assert chat.bind_tools([get_weather]).invoke(again).text == TEXTS["after"]


def test_it_embeds(parrots):
    vectors = langchain_ollama.OllamaEmbeddings(model="parrot", base_url=parrots.url).embed_documents(["a bird", "a tree"])
    assert len(vectors) == 2 and vectors[0] != vectors[1] and abs(sum(x * x for x in vectors[0]) - 1) < 1e-5
