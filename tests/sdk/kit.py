# SPDX-License-Identifier: Apache-2.0
"""kit.py -- what the tests in Python share: names of models, and what the double saw of them."""
import itertools
import json
import os
import pathlib
import time
import urllib.request

SOCKET = os.environ["DOOR_SOCKET"]
PATIENCE_S = 10  # for what has to happen, on a machine that has other things to do
HELLO = [{"role": "user", "content": "Is the line clear?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "unit": {"type": "string"}}, "required": ["city"]},
    },
}
WEATHER_ARGUMENTS = {"city": "Paris", "unit": "celsius"}  # what the double calls it with
CITY = {"city": "Paris", "rivers": ["Seine", "Bièvre"], "population": 2100000}
SENTENCE = "The points are set, the line is clear."

_models = itertools.count(1)
_own = itertools.count(2)


def model(name: str) -> str:
    """A target of this name that no other test has: its health and its entries in the log are its own. And with "own/..." a provider
    that no other test has, so that what is learned of its key is forgotten with it."""
    provider, slash, behaviour = name.partition("/")
    if provider == "own":
        provider = f"own-{next(_own)}"
    return f"{provider}{slash}{behaviour}.py{next(_models)}"


class Double:
    """The double's control interface: signalbox-mock(1)."""

    url = os.environ["DOUBLE_URL"]

    def _call(self, method: str, path: str, body: str = "") -> str:
        request = urllib.request.Request(self.url + path, method=method, data=body.encode() or None)
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.read().decode()

    def rule(self, line: str) -> None:
        """One rule more, before all others."""
        self._call("POST", "/mock/rules", line)

    def log(self, target: str) -> list[dict]:
        """The requests for this target, in their order."""
        name = target.partition("/")[2] or target
        return [entry for entry in json.loads(self._call("GET", "/mock/log?bodies=1")) if entry["model"] == name]

    def body(self, target: str) -> dict:
        """What the one request for this target said."""
        (entry,) = self.log(target)
        return json.loads(entry["body"])

    def wait(self, target: str, what) -> list[dict]:
        """The log, as soon as what(log) holds."""
        until = time.monotonic() + PATIENCE_S
        while not what(log := self.log(target)):
            assert time.monotonic() < until, f"the double saw only: {log}"
            time.sleep(0.005)
        return log

    def closed_ns(self, target: str) -> int:
        """When the connection of the one request for this target was closed from our side (CLOCK_MONOTONIC)."""
        (entry,) = self.wait(target, lambda log: log and all(e["closed_after_ns"] is not None for e in log))
        assert entry["state"] == "client-closed", entry
        return entry["time_ns"] + entry["closed_after_ns"]

    def most_at_once(self, target: str) -> int:
        """How many requests for this target were under way at the same time."""
        log = self.wait(target, lambda log: log and all(e["closed_after_ns"] is not None for e in log))
        edges = sorted([(e["time_ns"], 1) for e in log] + [(e["time_ns"] + e["closed_after_ns"], -1) for e in log])
        return max(itertools.accumulate(step for _, step in edges))


double = Double()


def agent_pid() -> int:
    return int(pathlib.Path(os.environ["AGENT_PID_FILE"]).read_text())
