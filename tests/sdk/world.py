# SPDX-License-Identifier: Apache-2.0
"""world.py COMMAND... -- run a command in a world of its own: a double of a provider, the agent and the door, in a temporary directory.

The command finds the door as any program would, by OPENAI_BASE_URL and OPENAI_API_KEY, and besides by DOOR_SOCKET (its Unix socket).
DOUBLE_URL is the double's control interface (signalbox-mock(1)), AGENT_PID_FILE the process id of the agent, which is started again
when it dies, as systemd would. Nothing else of this environment reaches the programs: a real key or a proxy in it would be taken up.

The status is the command's; or 1 when a program of ours did not start, did not end in order, spoke by a sanitizer or wrote a key into
its log. SBX_BUILD says where the programs are, SIGNALBOX_LOOP on which loop the agent runs.
"""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(os.environ.get("SBX_BUILD", HERE.parent.parent / "build/plain")).resolve()
OWN_PROVIDERS = 90
PROVIDER_KEY = "sk-canary-2b7e151628aed2a6"  # the double demands it; no log may hold it
START_S = 20
END_S = 40
RESTART_S = 0.3  # systemd's RestartSec is 0.1 s; long enough here for a client to find nobody


def config(double: str) -> dict:
    """All providers are the one double. Those called own-N are for one test each: what a refused key or a rate limit teaches about
    a provider is not to reach the next one."""
    provider = {"base_url": double, "key": "env:DOUBLE_KEY", "idempotency_key": True}
    names = ["main", "openai", *(f"own-{n}" for n in range(1, OWN_PROVIDERS + 1))]
    return {
        "warm": False,
        "providers": {name: provider for name in names} | {"wrong-key": provider | {"key": "env:WRONG_KEY"}},
        "routes": {"chat": {"targets": ["own-1/failing.route", "main/text.route"]}},
        "timeouts": {"first_content_ms": 1500, "first_content_max_ms": 1500, "whole_ms": 1500},
    }


class World:
    def __init__(self) -> None:
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="signalbox-sdk.", dir="/tmp"))  # a socket's path has at most 107 bytes
        self.env = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "SIGNALBOX_LOOP", "ASAN_OPTIONS") if name in os.environ}
        self.ending = False
        self.faults: list[str] = []
        self.processes: dict[str, subprocess.Popen] = {}

    def start(self, name: str, program: str, *args: object, **env: str) -> subprocess.Popen:
        with open(self.dir / f"{name}.log", "ab") as log:
            process = subprocess.Popen([BUILD / program, *map(str, args)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env | env)
        self.processes[name] = process
        return process

    def wait_for(self, name: str, what):
        """What `what` returns as soon as it is something; the program `name` is what makes it so."""
        until = time.monotonic() + START_S
        while not (got := what()):
            if self.processes[name].poll() is not None or time.monotonic() > until:
                sys.exit(f"world.py: the {name} did not start:\n{self.log(name)}")
            time.sleep(0.01)
        return got

    def log(self, name: str) -> str:
        return (self.dir / f"{name}.log").read_text(errors="replace")

    def up(self) -> None:
        ports = self.dir / "ports"
        self.start("double", "signalbox-mock", "--quiet", "--listen", "127.0.0.1:0", "--key", PROVIDER_KEY, "--ports-file", ports)
        self.wait_for("double", ports.exists)
        self.double = f"http://127.0.0.1:{json.loads(ports.read_text())['http'][0]}"
        rules = (HERE / "double.rules").read_bytes()
        urllib.request.urlopen(urllib.request.Request(f"{self.double}/mock/rules", rules, method="PUT"), timeout=START_S).close()
        own = {"listen": {"socket": str(self.dir / "agent.sock")}, "store": str(self.dir / "store.db")}
        (self.dir / "config.json").write_text(json.dumps(own | config(self.double + "/v1")))
        self.start_agent()
        self.wait_for("agent", (self.dir / "agent.sock").exists)
        threading.Thread(target=self.keep_agent, daemon=True).start()
        create = [BUILD / "signalbox", "key", "create", "--tenant", "sdk", "--socket", self.dir / "admin.sock"]
        self.key = subprocess.run(create, stdout=subprocess.PIPE, check=True, text=True, env=self.env).stdout.strip()
        socket = self.dir / "http.sock"
        self.start("door", "signalbox-http", "--socket", self.dir / "agent.sock", "--listen", "127.0.0.1:0", "--listen", socket)
        port = self.wait_for("door", lambda: socket.exists() and self.log("door").partition("address=127.0.0.1:")[2].split(" ")[0].strip())
        self.url, self.socket = f"http://127.0.0.1:{int(port)}/v1", str(socket)

    def start_agent(self) -> None:
        args = ("--config", self.dir / "config.json", "--drain", 2)
        agent = self.start("agent", "signalboxd", *args, DOUBLE_KEY=PROVIDER_KEY, WRONG_KEY="sk-canary-wrong")
        (self.dir / "agent.pid").write_text(str(agent.pid))

    def keep_agent(self) -> None:
        while True:
            self.processes["agent"].wait()
            if self.ending:
                return
            time.sleep(RESTART_S)
            self.start_agent()

    def run(self, command: list[str]) -> int:
        env = self.env | {
            "OPENAI_BASE_URL": self.url,
            "OPENAI_API_KEY": self.key,
            "DOOR_SOCKET": self.socket,
            "DOUBLE_URL": self.double,
            "AGENT_PID_FILE": str(self.dir / "agent.pid"),
        }
        return subprocess.call(command, env=env, stdin=subprocess.DEVNULL)

    def down(self) -> None:
        self.ending = True
        for name in ("door", "agent", "double"):
            process = self.processes.get(name)
            if not process:
                continue
            process.terminate()
            try:
                status = process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                status = "no end"
            log = self.log(name)
            secrets = [PROVIDER_KEY, "sk-canary-wrong", getattr(self, "key", PROVIDER_KEY)]
            if status != 0 or "Sanitizer" in log or "runtime error" in log or any(s in log for s in secrets):
                self.faults.append(f"the {name} ended with {status}, or its log tells what it should not:\n{log[-8000:]}")
        shutil.rmtree(self.dir, ignore_errors=True)


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 64
    for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(sig, lambda number, _: sys.exit(128 + number))
    world = World()
    try:
        world.up()
        status = world.run(sys.argv[1:])
    finally:
        world.down()
    for fault in world.faults:
        print(f"world.py: {fault}", file=sys.stderr)
    return status or bool(world.faults)


if __name__ == "__main__":
    sys.exit(main())
