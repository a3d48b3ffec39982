# SPDX-License-Identifier: Apache-2.0
"""test_openai_errors.py -- failures: each is raised as the client's own type, and its retries do not multiply with the agent's."""
import os
import signal
import socket
import time

import openai
import pytest

from kit import HELLO, SENTENCE, agent_pid, double, model

RETRIES = 5  # of the client: more than the agent would make


def ask(client, target, **more):
    return client.chat.completions.create(model=target, messages=HELLO, **more)


# ---- types ----


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    "name, error, status",
    [
        ("main/invalid", openai.BadRequestError, 400),
        ("own/denied", openai.AuthenticationError, 401),
        ("main/forbidden", openai.PermissionDeniedError, 403),
        ("main/missing", openai.NotFoundError, 404),
        ("main/unprocessable", openai.UnprocessableEntityError, 422),
        ("own/limited", openai.RateLimitError, 429),
        ("own/failing", openai.InternalServerError, 500),
        ("own/overloaded", openai.InternalServerError, 503),
        ("own/gone", openai.InternalServerError, 502),
        ("own/page", openai.InternalServerError, 502),
        ("own/silent", openai.InternalServerError, 502),
        ("nobody/knows", openai.NotFoundError, 404),
    ],
)
def test_type(client, name, error, status, streamed):
    with pytest.raises(error) as raised:
        ask(client, model(name), stream=streamed)
    e = raised.value
    assert e.status_code == status
    assert e.request_id.startswith("req_")
    assert e.type and len(e.message) > 10
    assert e.response.headers["x-should-retry"] == "false"


def test_rate_limit_tells_when(client):
    with pytest.raises(openai.RateLimitError) as raised:
        ask(client, model("own/limited"))
    assert raised.value.code == "rate_limit_exceeded"
    assert int(raised.value.response.headers["retry-after"]) in (599, 600)


def test_wrong_key(client):
    with pytest.raises(openai.AuthenticationError) as raised:
        ask(client.with_options(api_key="sk-signalbox-wrong"), model("main/text"))
    assert raised.value.code == "invalid_api_key"
    assert "wrong" not in raised.value.message


def test_member_that_is_not_obeyed_is_refused_by_name(client):
    with pytest.raises(openai.BadRequestError) as raised:
        ask(client, model("main/text"), extra_body={"provider": {"zdr": True}})
    assert "zdr" in raised.value.message


def test_nobody_listens():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))  # a port that is surely closed: bound, not listened on
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{s.getsockname()[1]}/v1", max_retries=0)
        with pytest.raises(openai.APIConnectionError):
            ask(client, "chat")


def test_stream_that_breaks(client):
    content = []
    with pytest.raises(openai.APIError) as raised:
        for chunk in ask(client, model("main/torn"), stream=True):
            content.append(chunk.choices[0].delta.content)
    assert len([c for c in content if c]) == 5
    assert len(raised.value.message) > 10


# ---- retries ----


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", ["own/failing", "own/gone", "own/limited", "own/page"])
def test_retries_do_not_multiply(client, name, streamed):
    seen = []
    for retries in (0, RETRIES):
        m = model(name)
        began = time.monotonic()
        with pytest.raises(openai.APIStatusError):
            ask(client.with_options(max_retries=retries), m, stream=streamed)
        assert time.monotonic() - began < 5
        seen.append(len(double.log(m)))
    assert seen[1] == seen[0] <= 2, f"requests at the provider without retries of the client, and with {RETRIES}: {seen}"


def test_retry_where_nothing_was_tried(client):
    """While a provider's rate limit holds the agent does not ask it, nor wait for so long: the client is told when it may."""
    m = model("own/limited")
    for should_retry in ("false", "true"):
        with pytest.raises(openai.RateLimitError) as raised:
            ask(client.with_options(max_retries=0), m)
        assert raised.value.response.headers["x-should-retry"] == should_retry
        assert 590 <= int(raised.value.response.headers["retry-after"]) <= 600
    assert len(double.log(m)) == 1


def test_agent_that_dies(client):
    """kill -9, and asked at once: the door says when to ask again, the client does, and the agent is back."""
    assert ask(client, model("main/text")).choices[0].message.content == SENTENCE
    os.kill(agent_pid(), signal.SIGKILL)
    with pytest.raises(openai.InternalServerError) as raised:
        for _ in range(1000):  # the door may not have seen it yet
            ask(client.with_options(max_retries=0), model("main/text"))
    assert raised.value.status_code == 503
    assert int(raised.value.response.headers["retry-after"]) >= 1
    assert ask(client.with_options(max_retries=4), model("main/text")).choices[0].message.content == SENTENCE


# ---- time ----


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_timeout_of_the_client(client, streamed):
    """It gives up: so does the agent at the provider, at once."""
    m = model("main/silent")
    with pytest.raises(openai.APITimeoutError):
        ask(client.with_options(timeout=0.4, max_retries=0), m, stream=streamed)
    gave_up = time.monotonic_ns()
    assert double.closed_ns(m) - gave_up < 500e6


def test_timeout_of_the_agent(client):
    m = model("main/late")
    with pytest.raises(openai.InternalServerError) as raised:
        ask(client.with_options(max_retries=RETRIES), m, stream=True)
    assert raised.value.status_code == 502
    assert len(double.log(m)) == 1
