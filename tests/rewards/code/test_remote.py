"""A server that speaks SandboxFusion's interface, and one that does not."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from cohort.errors import UsageError
from cohort.rewards.code import kind, remote
from cohort.rewards.code.grading import grade_all
from cohort.rewards.code.sandbox import Limits
from cohort.rewards.code.shapes import read_tests


class _Server(ThreadingHTTPServer):
    """Runs what these tests send in processes of its own; `plays` are answers that it gives first."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.plays: list[tuple[int, Any]] = []
        self.asked: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *_: Any) -> None: ...

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append({"path": self.path, **asked})
        code, answer = self.server.plays.pop(0) if self.server.plays else (200, _ran(asked))
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _ran(asked: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-c", asked["code"]]
    try:
        done = subprocess.run(
            command, input=asked["stdin"], capture_output=True, text=True, timeout=asked["run_timeout"]
        )
    except subprocess.TimeoutExpired:
        return {"status": "Failed", "run_result": {"status": "TimeLimitExceeded", "stdout": "", "stderr": ""}}
    result = {"status": "Finished", "return_code": done.returncode, "stdout": done.stdout, "stderr": done.stderr}
    return {"status": "Success" if done.returncode == 0 else "Failed", "message": "", "run_result": result}


@pytest.fixture(scope="module")
def server() -> Iterator[_Server]:
    server = _Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_server_runs_programs(server: _Server) -> None:
    place = remote.Remote(server.url + "/")
    streams = {"tests": [{"input": "3", "output": "6"}]}
    cases = {"entry_point": "f", "cases": [[[1, 2], [3]], [[4, 5], [9]]]}
    asserts = {"test_code": "import math\nassert f(1, 2) == [3]\nassert len(f(float('inf'), 1)) == 1"}
    asked: list[tuple[str, dict[str, Any], float, str]] = [
        ("print(int(input()) * 2)", streams, 1.0, "passed"),
        ("print(7)", streams, 0.0, "wrong"),
        ("raise ValueError('this')", streams, 0.0, "error"),
        ("x = 'x'\nraise MemoryError", streams, 0.0, "memory"),
        ("import time\ntime.sleep(20)", streams, 0.0, "time"),
        ("def f(a, b):\n    print('cohort-')\n    return [a + b]", cases, 1.0, "passed"),
        ("def f(a, b):\n    return [3]", cases, 0.5, "wrong"),
        ("import os\nos._exit(0)", cases, 0.0, "error"),
        ("class A(list):\n    def __eq__(s, o): return True\ndef f(a, b):\n    return A()", cases, 0.0, "wrong"),
        (f"print('{remote.MARK}v0')\n" * 4 + "def f(a, b):\n    return 0", cases, 0.0, "wrong"),
        ("def f(a, b):\n    return [a + b]", asserts, 1.0, "passed"),
    ]
    programs = [(program, read_tests(row)) for program, row, *_ in asked]
    verdicts = grade_all(programs, place, Limits(seconds=3.0), every=True, seconds=60.0)
    assert [(verdict.share, verdict.why) for verdict in verdicts] == [(share, why) for *_, share, why in asked]
    last = server.asked[-1]
    assert (last["path"], last["language"], last["memory_limit_MB"]) == ("/run_code", "python", 1024)
    assert not any("[9]" in each["code"] for each in server.asked)


def test_a_server_that_fails_is_asked_again_and_then_told(server: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSE", 0.01)
    place = remote.Remote(server.url)
    server.plays = [(503, b"busy"), (200, {"status": "SandboxError", "message": "no room"})]
    assert place.stream("print(1)", "", Limits()).out == b"1\n"
    for play, says in (
        ((500, b"broken"), "failed .status 500: broken"),
        ((200, b"no json"), "does not answer"),
        ((200, {"status": "SandboxError", "message": "no room"}), "failed .status 200: no room"),
        ((200, [1]), "failed .status 200"),
    ):
        server.plays = [play] * remote.TRIES
        with pytest.raises(remote.ServerError, match=says):
            place.stream("print(1)", "", Limits())


def test_a_server_that_hangs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(remote, "PATIENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = object.__new__(remote.Remote)
        place.url, place._own = f"http://127.0.0.1:{silent.getsockname()[1]}", threading.local()
        with pytest.raises(remote.ServerError, match="did not answer within"):
            place.stream("print(1)", "", Limits(seconds=0.2))


def test_a_server_that_is_not_there_is_told_before_a_run(server: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSE", 0.01)
    kind._place.cache_clear()
    with pytest.raises(
        UsageError, match=r"the server of code rewards at http://127.0.0.1:1 does not answer .* start it"
    ):
        kind.make("@http://127.0.0.1:1")
    with pytest.raises(UsageError, match="written http://host:port, not 'here'"):
        kind.make("partial@here")
    server.plays = [(200, {"status": "Success", "run_result": {"status": "Finished", "stdout": "41"}})]
    with pytest.raises(UsageError, match="does not run Python"):
        kind.make(f"@{server.url}")
    kind._place.cache_clear()


def test_rows_that_a_server_cannot_judge_are_told(server: _Server) -> None:
    loop = {"test_code": "for i in range(3):\n    assert f(i) == i\n"}
    with pytest.raises(UsageError, match="row 1: a server of SandboxFusion runs asserts of the form"):
        kind.check(f"@{server.url}", [("row 1", loop)])
    kind.check(f"@{server.url}", [("row 1", {"test_code": "assert f(1) == 1", "solution": "def f(x): return x"})])
    assert kind.make(f"partial@{server.url}")(
        ["def f(x): return x"], test_code=["assert f(1) == 1\nassert f(2) == 3"]
    ) == [0.5]
    kind._place.cache_clear()
