# SPDX-License-Identifier: Apache-2.0
"""test_openai.py -- OpenAI's client for Python: what is asked arrives at the provider, what it answers arrives here."""
import base64
import json

import openai
import pydantic
import pytest

from kit import CITY, HELLO, SENTENCE, WEATHER, WEATHER_ARGUMENTS, double, model

PIXEL = "data:image/png;base64," + base64.b64encode(bytes.fromhex("89504e470d0a1a0a0000000d49484452")).decode()


class City(pydantic.BaseModel):
    city: str
    rivers: list[str]
    population: int


# ---- chat ----


def test_chat(client):
    m = model("main/text")
    answer = client.chat.completions.create(model=m, messages=HELLO, temperature=0.7, seed=18446744073709551615)
    assert answer.choices[0].message.content == SENTENCE
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (10, 8)
    assert answer._request_id.startswith("req_")
    sent = double.body(m)
    assert sent["messages"] == HELLO
    assert (sent["temperature"], sent["seed"]) == (0.7, 18446744073709551615)


def test_route_falls_over(client):
    answer = client.chat.completions.create(model="chat", messages=HELLO)
    assert answer.choices[0].message.content == SENTENCE
    assert answer.model == "text.route"


def test_roles_and_text_of_any_language(client):
    m = model("main/text")
    messages = [
        {"role": "developer", "content": "Kurz, bitte."},
        {"role": "user", "content": [{"type": "text", "text": "Grüße, 線路は空いていますか 🚂 \u0000 \\ \" \n"}]},
        {"role": "assistant", "content": "ja"},
        {"role": "user", "content": "x" * 300_000},
    ]
    client.chat.completions.create(model=m, messages=messages)
    assert double.body(m)["messages"] == messages


def test_image(client):
    m = model("main/text")
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}}]
    answer = client.chat.completions.create(model=m, messages=[{"role": "user", "content": content}])
    assert answer.choices[0].message.content == SENTENCE
    assert double.body(m)["messages"][0]["content"] == content


# ---- streams ----


def test_stream_as_asked_without_usage(client):
    m = model("main/text")
    with client.chat.completions.create(model=m, messages=HELLO, stream=True) as stream:
        chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == SENTENCE
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(c.usage is None for c in chunks)
    assert stream.response.headers["x-signalbox-target"] == m


def test_stream_with_usage(client):
    m = model("main/text")
    stream = client.chat.completions.create(model=m, messages=HELLO, stream=True, stream_options={"include_usage": True})
    *content, last = stream
    assert "".join(c.choices[0].delta.content or "" for c in content) == SENTENCE
    assert all(c.usage is None for c in content)
    assert last.choices == []
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (10, 8)


def test_stream_helper(client):
    m = model("main/reasoning")
    with client.chat.completions.stream(model=m, messages=HELLO) as stream:
        kinds = {event.type for event in stream}
        answer = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert answer.choices[0].message.content == "The line is clear."
    assert answer.choices[0].message.reasoning_content == " r1 r2 r3 r4 r5"


# ---- tools ----


def call_of(message):
    return {"role": "assistant", "tool_calls": [c.model_dump(include={"id", "type", "function"}) for c in message.tool_calls]}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_tool_and_its_result(client, streamed):
    m, then = model("main/tool"), model("main/text")
    ask = {"model": m, "messages": HELLO, "tools": [WEATHER], "tool_choice": "auto", "parallel_tool_calls": False}
    if streamed:
        with client.chat.completions.stream(**ask) as stream:
            answer = stream.get_final_completion()
    else:
        answer = client.chat.completions.create(**ask)
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == WEATHER_ARGUMENTS
    assert double.body(m)["tools"] == [WEATHER]

    messages = [*HELLO, call_of(choice.message), {"role": "tool", "tool_call_id": call.id, "content": '{"celsius": 21}'}]
    answer = client.chat.completions.create(model=then, messages=messages, tools=[WEATHER])
    assert answer.choices[0].message.content == SENTENCE
    sent = double.body(then)["messages"]
    assert sent[2] == messages[2] and sent[1]["tool_calls"][0]["id"] == call.id


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_tools_in_parallel(client, streamed):
    ask = {"model": model("main/tools"), "messages": HELLO, "tools": [WEATHER]}
    if streamed:
        with client.chat.completions.stream(**ask) as stream:
            answer = stream.get_final_completion()
    else:
        answer = client.chat.completions.create(**ask)
    calls = answer.choices[0].message.tool_calls
    assert len({c.id for c in calls}) == 3
    assert [json.loads(c.function.arguments) for c in calls] == [WEATHER_ARGUMENTS] * 3


# ---- structured output ----


def test_structured_output(client):
    m = model("main/city")
    answer = client.chat.completions.parse(model=m, messages=HELLO, response_format=City)
    assert answer.choices[0].message.parsed == City(**CITY)
    wanted = double.body(m)["response_format"]
    assert wanted["type"] == "json_schema"
    assert wanted["json_schema"]["strict"] is True
    assert list(wanted["json_schema"]["schema"]["properties"]) == ["city", "rivers", "population"]


def test_structured_output_streamed(client):
    with client.chat.completions.stream(model=model("main/city"), messages=HELLO, response_format=City) as stream:
        for _ in stream:
            pass
        assert stream.get_final_completion().choices[0].message.parsed == City(**CITY)


def test_structured_tool(client):
    class GetWeather(pydantic.BaseModel):
        city: str
        unit: str

    tool = openai.pydantic_function_tool(GetWeather, name="get_weather")
    answer = client.chat.completions.parse(model=model("main/tool"), messages=HELLO, tools=[tool])
    assert answer.choices[0].message.tool_calls[0].function.parsed_arguments == GetWeather(**WEATHER_ARGUMENTS)


# ---- the other endpoints ----


def test_embeddings(client):
    m = model("main/text")
    by_base64 = client.embeddings.create(model=m, input=["one", "two"])  # what this client asks for by itself
    assert double.body(m)["encoding_format"] == "base64"
    floats = client.embeddings.create(model=model("main/text"), input=["one", "two"], encoding_format="float", dimensions=8)
    assert [d.index for d in floats.data] == [0, 1]
    for a, b in zip(by_base64.data, floats.data, strict=True):
        assert list(a.embedding) == pytest.approx(b.embedding, abs=1e-6)
    assert floats.usage.prompt_tokens == 10


def test_completions(client):
    m = model("main/text")
    assert client.completions.create(model=m, prompt="Is the line").choices[0].text == SENTENCE
    assert double.log(m)[0]["path"] == "/v1/completions"
    pieces = client.completions.create(model=model("main/text"), prompt="Is the line", stream=True)
    assert "".join(p.choices[0].text for p in pieces if p.choices) == SENTENCE


def test_models(client):
    assert "chat" in [m.id for m in client.models.list()]
    assert client.models.retrieve("chat").id == "chat"
    one = client.models.retrieve("main/text.route")
    assert (one.id, one.owned_by, one.object) == ("main/text.route", "main", "model")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody/knows")


# ---- what the answer tells besides ----


def test_headers(client):
    raw = client.chat.completions.with_raw_response.create(model="openai/gpt-5.2", messages=HELLO)
    answer, headers = raw.parse(), raw.headers
    assert answer.choices[0].message.content == "Rhine Elbe Danube"
    assert headers["x-request-id"].startswith("req_")
    assert headers["x-signalbox-target"] == "openai/gpt-5.2"
    assert headers["x-signalbox-attempts"] == "1"
    assert 0 <= int(headers["x-signalbox-overhead"]) < 5000
    # 1000 tokens in at 1.75 USD a million, 3 out at 14
    assert headers["x-signalbox-cost"] == "0.001792000"


def test_cost_in_usage(client):
    ask = {"model": "openai/gpt-5.2", "messages": HELLO, "extra_body": {"usage": {"include": True}}}
    assert client.chat.completions.create(**ask).usage.cost == 0.001792
    *_, last = client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True})
    assert last.usage.cost == 0.001792


def test_idempotency_key_is_passed_on(client):
    m = model("main/text")
    client.chat.completions.create(model=m, messages=HELLO, extra_headers={"Idempotency-Key": "once-4711"})
    assert double.log(m)[0]["idempotency_key"] == "once-4711"
