"""A server in a thread that speaks the interface of OpenAI's, and fails as it is told."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[list[dict[str, str]]], str]


def always(text: str) -> Answer:
    return lambda messages: text


@dataclass
class Serving:
    """What the server does.

    Attributes:
        answer: messages -> the reply.
        plan: what becomes of the next questions, one entry each: "ok", a status, (status, Retry-After), "close" (the
            connection breaks), "half" (of the JSON), "nonsense" (JSON that is no completion), "hang", or seconds that it takes.
            Behind its end all goes well; `forever` goes on without an end.
        asked: the bodies of all questions, in the order in which they came; at once: most that were there together.
    """

    answer: Answer = field(default_factory=lambda: always("Score: 7"))
    plan: list[Any] = field(default_factory=list)
    forever: Any = None
    models: list[str] = field(default_factory=lambda: ["judge"])
    key: str = ""
    usage: bool = True
    refuse: dict[str, str] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    at_once: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    now: int = 0
    port: int = 0
    open: list[socket.socket] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


@contextmanager
def serve(serving: Serving | None = None, port: int = 0) -> Iterator[Serving]:
    found = serving or Serving()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            found.open.append(self.connection)

        def log_message(self, *_: Any) -> None: ...

        def send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(data)),
                **(headers or {}),
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def allowed(self) -> bool:
            found.keys.append(self.headers.get("Authorization", ""))
            if found.key and found.keys[-1] != f"Bearer {found.key}":
                self.send(401, {"error": {"message": "no such key"}})
                return False
            return True

        def do_GET(self) -> None:
            if self.allowed():
                self.send(200, {"object": "list", "data": [{"id": name, "root": f"/{name}"} for name in found.models]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not self.allowed():
                return
            with found.lock:
                found.asked.append(body)
                found.times.append(time.monotonic())
                found.now += 1
                found.at_once = max(found.at_once, found.now)
                what = found.plan.pop(0) if found.plan else found.forever
            try:
                self.do(what, body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True
            finally:
                with found.lock:
                    found.now -= 1

        def do(self, what: Any, body: dict[str, Any]) -> None:
            for name, said in found.refuse.items():
                if name in body:
                    return self.send(400, {"error": {"message": said}})
            text = found.answer(body["messages"])
            usage = {"usage": {"prompt_tokens": 11, "completion_tokens": 3}} if found.usage else {}
            choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            whole = json.dumps({"choices": [choice], **usage}).encode()
            if what == "hang":
                found.over.wait(30)
                self.close_connection = True
            elif what == "close":
                self.close_connection = True
                self.connection.close()
            elif what == "half":
                self.send(200, whole[: len(whole) // 2])
            elif what == "nonsense":
                self.send(200, {"choices": [{"message": {"content": {"score": 7}}}]})
            elif isinstance(what, tuple):
                self.send(what[0], {"error": {"message": "slow down"}}, {"Retry-After": str(what[1])})
            elif isinstance(what, int) and not isinstance(what, bool) and what >= 400:
                self.send(what, {"error": {"message": f"failure {what}"}})
            else:
                if isinstance(what, float):
                    found.over.wait(what)
                self.send(200, whole)

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    found.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        found.over.set()
        server.shutdown()
        server.server_close()
        for connection in found.open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
