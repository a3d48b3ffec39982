# SPDX-License-Identifier: Apache-2.0
"""test_langchain.py -- LangChain's ChatOpenAI, found by the environment alone; over the Unix socket by a client of one's own."""
import json

import httpx2
import openai
import pydantic
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from kit import CITY, HELLO, SENTENCE, SOCKET, WEATHER_ARGUMENTS, double, model


class City(pydantic.BaseModel):
    """A city and what is known of it."""

    city: str
    rivers: list[str]
    population: int


@tool
def get_weather(city: str, unit: str = "celsius") -> str:
    """The weather of a city."""
    return f"21 {unit} in {city}"


@pytest.fixture(params=["tcp", "unix"])
def chat(request):
    def make(name, **more):
        if request.param == "unix":
            http = openai.DefaultHttpxClient(transport=httpx2.HTTPTransport(uds=SOCKET))
            more |= {"base_url": "http://signalbox/v1", "http_client": http}
        return ChatOpenAI(model=name, **more)

    return make


def test_invoke(chat):
    m = model("main/text")
    answer = chat(m, temperature=0.5).invoke("Is the line clear?")
    assert answer.content == SENTENCE
    assert answer.usage_metadata["total_tokens"] == 18
    assert double.body(m)["messages"] == HELLO


def test_stream(chat):
    pieces = list(chat(model("main/text")).stream("Is the line clear?"))
    assert "".join(p.content for p in pieces) == SENTENCE
    assert len([p for p in pieces if p.content]) == 8


def test_stream_with_usage(chat):
    whole = None
    for piece in chat(model("main/text"), stream_usage=True).stream("Is the line clear?"):
        whole = piece if whole is None else whole + piece
    assert whole.content == SENTENCE
    assert whole.usage_metadata["input_tokens"] == 10 and whole.usage_metadata["output_tokens"] == 8


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_tool_and_its_result(chat, streamed):
    then = model("main/text")
    caller = chat(model("main/tool"), streaming=streamed).bind_tools([get_weather])
    asked = [HumanMessage("How warm is it in Paris?")]
    answer = caller.invoke(asked)
    (call,) = answer.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", WEATHER_ARGUMENTS)
    result = get_weather.invoke(call)
    assert isinstance(result, ToolMessage)
    final = chat(then).bind_tools([get_weather]).invoke([*asked, answer, result])
    assert final.content == SENTENCE
    sent = double.body(then)["messages"]
    assert json.loads(sent[1]["tool_calls"][0]["function"]["arguments"]) == WEATHER_ARGUMENTS
    assert (sent[2]["role"], sent[2]["content"]) == ("tool", "21 celsius in Paris")


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
def test_structured_output(chat, method):
    m = model("main/city")
    assert chat(m).with_structured_output(City, method=method).invoke("Say it in JSON") == City(**CITY)
    assert double.body(m)["response_format"]["type"] == {"json_schema": "json_schema", "json_mode": "json_object"}[method]


def test_batch(chat):
    m = model("main/steady")
    answers = chat(m).batch(["a", "b", "c", "d", "e"])
    assert len(answers) == 5 and all(a.content.endswith(" t40") for a in answers)


def test_errors_and_retries(chat):
    seen = []
    for retries in (0, 4):
        m = model("own/failing")
        with pytest.raises(openai.InternalServerError):
            chat(m, max_retries=retries).invoke("Is the line clear?")
        seen.append(len(double.log(m)))
    assert seen[0] == seen[1] <= 2
    with pytest.raises(openai.RateLimitError):
        chat(model("own/limited")).invoke("Is the line clear?")
    with pytest.raises(openai.BadRequestError):
        chat(model("main/invalid")).invoke("Is the line clear?")


def test_timeout(chat):
    m = model("main/silent")
    with pytest.raises(openai.APITimeoutError):
        chat(m, timeout=0.3, max_retries=0).invoke("Is the line clear?")
    assert double.closed_ns(m)


def test_embeddings():
    # As for any server that is not OpenAI's own: it gets the text, not the numbers of OpenAI's tokenizer, which is no part of the package.
    embeddings = OpenAIEmbeddings(model=model("main/text"), check_embedding_ctx_length=False)
    vectors = embeddings.embed_documents(["one", "two"])
    assert len(vectors) == 2 and len(vectors[0]) == 8
