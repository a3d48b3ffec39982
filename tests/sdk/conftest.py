# SPDX-License-Identifier: Apache-2.0
"""conftest.py -- OpenAI clients as a program would make them: with nothing but the environment, or over the Unix socket."""
import httpx2
import openai
import pytest

import kit


@pytest.fixture(params=["tcp", "unix"])
def client(request):
    if request.param == "tcp":
        made = openai.OpenAI()
    else:
        transport = httpx2.HTTPTransport(uds=kit.SOCKET)
        made = openai.OpenAI(base_url="http://signalbox/v1", http_client=openai.DefaultHttpxClient(transport=transport))
    with made:
        yield made


@pytest.fixture(params=["tcp", "unix"])
def make_async_client(request):
    """Made inside the test's own event loop."""

    def make(**options):
        if request.param == "tcp":
            return openai.AsyncOpenAI(**options)
        transport = httpx2.AsyncHTTPTransport(uds=kit.SOCKET)
        http = openai.DefaultAsyncHttpxClient(transport=transport)
        return openai.AsyncOpenAI(base_url="http://signalbox/v1", http_client=http, **options)

    return make
