# SPDX-License-Identifier: Apache-2.0
"""test_curl.py -- curl: what it shows of an answer is the answer."""
import json
import os
import subprocess

import pytest

from kit import HELLO, SENTENCE, SOCKET, model

KEY = os.environ["OPENAI_API_KEY"]
URL = os.environ["OPENAI_BASE_URL"]


@pytest.fixture(params=["tcp", "unix"])
def curl(request):
    """Runs it with the key; the status, the headers and the body."""

    def run(path, *args, body=None, key=KEY):
        where = [URL + path] if request.param == "tcp" else ["--unix-socket", SOCKET, "http://signalbox/v1" + path]
        command = ["curl", "-sS", "-N", "-i", "--noproxy", "*", "--max-time", "30", "-H", f"Authorization: Bearer {key}", *args, *where]
        if body is not None:
            command += ["-H", "Content-Type: application/json", "--data-binary", json.dumps(body)]
        said = subprocess.run(command, capture_output=True, check=True).stdout.decode()
        head, _, text = said.partition("\r\n\r\n")
        status, *lines = head.split("\r\n")
        return int(status.split()[1]), {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}, text

    return run


def test_chat(curl):
    status, headers, text = curl("/chat/completions", body={"model": model("main/text"), "messages": HELLO})
    assert status == 200
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"].startswith("req_")
    assert json.loads(text)["choices"][0]["message"]["content"] == SENTENCE


def test_stream(curl):
    body = {"model": model("main/text"), "messages": HELLO, "stream": True}
    status, headers, text = curl("/chat/completions", body=body)
    assert status == 200
    assert headers["content-type"].startswith("text/event-stream")
    *events, last, empty = text.split("\n\n")
    assert (last, empty) == ("data: [DONE]", "")
    pieces = [json.loads(e.removeprefix("data: "))["choices"][0]["delta"] for e in events]
    assert "".join(p.get("content") or "" for p in pieces) == SENTENCE


def test_models(curl):
    status, _, text = curl("/models")
    assert status == 200 and "chat" in [m["id"] for m in json.loads(text)["data"]]


@pytest.mark.parametrize(
    "path, body, key, status, code",
    [
        ("/chat/completions", {"model": "main/text.curl", "messages": HELLO}, "sk-wrong", 401, "invalid_api_key"),
        ("/chat/completions", {"model": "nobody/knows", "messages": HELLO}, KEY, 404, "model_not_found"),
        ("/chat/completions", {"messages": HELLO}, KEY, 400, None),
        ("/chat/completions", {"model": "main/invalid.curl", "messages": HELLO}, KEY, 400, "invalid_value"),
        ("/audio/speech", {"model": "chat"}, KEY, 404, None),
    ],
)
def test_errors(curl, path, body, key, status, code):
    got, headers, text = curl(path, body=body, key=key)
    error = json.loads(text)["error"]
    assert got == status
    assert headers["x-should-retry"] == "false"
    assert error["message"] and error["type"] and "param" in error
    assert code is None or error["code"] == code


def test_large_body(curl, tmp_path):
    """More than a MiB: curl waits for a 100 before it sends it."""
    (tmp_path / "body").write_text(json.dumps({"model": model("main/text"), "messages": [{"role": "user", "content": "x" * (4 << 20)}]}))
    status, _, text = curl("/chat/completions", "-H", "Content-Type: application/json", "-H", "Expect:", "--data-binary", f"@{tmp_path}/body")
    assert status == 200 and SENTENCE in text
