"""The viewer's server: HTTP in front of query.py. It only reads.

Answers are made as JSON directly: they are plain values, and checking each of 40,000 numbers would take longer than reading
them.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
import webbrowser
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cohort.analysis.files import first_line, printable
from cohort.analysis.store import Run
from cohort.errors import UsageError
from cohort.viewer import query
from cohort.viewer.run_index import Followed, RunIndex

PORT = 8642
"""Where the viewer listens if nothing else was asked for; where it is taken, the next free one of `PORTS_TRIED`."""
PORTS_TRIED = 20
LOAD_AFTER = 1.5
"""Seconds after the start at which the modules for the page of tokens are loaded."""

STATIC = Path(__file__).parent / "static"
ASSETS = Path(__file__).parent.parent / "analysis" / "assets"

# Completions are text that a model wrote. Nothing in the page may run but what is packaged with it, nor ask anybody else.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

Wanted = Annotated[query.Filter, Depends()]


def application(index: RunIndex, *, hosts: Sequence[str] = ("*",)) -> FastAPI:
    """The web application that shows runs.

    Args:
        index: the runs.
        hosts: names under which it answers. Naming them keeps pages of other sites from reading runs by a name of
            theirs that leads to this machine.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # It needs torch and tokenizers, which take seconds to load: after the first page, and before a token is clicked.
        loading = threading.Timer(LOAD_AFTER, _load_tokens)
        loading.daemon = True
        loading.start()
        yield
        loading.cancel()

    app = FastAPI(title="cohort view", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(_Failures)
    app.add_middleware(_Headers)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))

    @app.exception_handler(UsageError)
    def refused(_: Request, error: UsageError) -> JSONResponse:
        return JSONResponse({"detail": printable(str(error))}, status_code=404)

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.get("/api/runs")
    def runs() -> JSONResponse:
        return JSONResponse([_head(each) for each in index.all()])

    @app.get("/api/metrics")
    def metrics(run: str, after: int = 0) -> JSONResponse:
        with index.get(run).fresh() as found:
            return JSONResponse(query.metrics(found, after))

    @app.get("/api/configurations")
    def configurations(run: Annotated[list[str], Query()]) -> JSONResponse:
        found = {}
        for name in dict.fromkeys(run):
            with index.get(name).fresh() as each:
                found[name] = each
        return JSONResponse(query.configurations(found))

    @app.get("/api/steps")
    def steps(run: str) -> JSONResponse:
        with index.get(run).fresh() as found:
            return JSONResponse(found.steps())

    @app.get("/api/rollouts")
    def rollouts(run: str, step: int, wanted: Wanted) -> JSONResponse:
        followed = index.get(run)
        with followed.fresh():
            return JSONResponse(_there(query.step_rollouts(followed, step, wanted), followed, step))

    @app.get("/api/search")
    def search(
        run: str,
        wanted: Wanted,
        first: int = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
        seconds: Annotated[float, Query(gt=0, le=10)] = 2.0,
    ) -> JSONResponse:
        followed = index.get(run)
        with followed.fresh() as found:
            steps = [step for step in found.steps() if step >= first]
        return JSONResponse(query.search(followed, steps, wanted, limit=limit, seconds=seconds))

    @app.get("/api/group")
    def group(run: str, step: int, group: int) -> JSONResponse:
        followed = index.get(run)
        with followed.fresh():
            return JSONResponse(_there(query.group(followed, step, group), followed, step, f"has no group {group}"))

    @app.get("/api/tokens")
    def tokens(run: str, step: int, row: int) -> JSONResponse:
        from cohort.viewer import token_page

        with index.get(run).fresh() as found:
            return JSONResponse(token_page.page(found, step, row))

    @app.get("/api/token")
    def token(run: str, step: int, row: int, token: int) -> JSONResponse:
        from cohort.viewer import token_page

        with index.get(run).fresh() as found:
            return JSONResponse(token_page.token(found, step, row, token))

    @app.get("/api/findings")
    def findings(run: str) -> JSONResponse:
        return JSONResponse(index.get(run).findings())

    app.mount("/assets", StaticFiles(directory=ASSETS))
    app.mount("/static", StaticFiles(directory=STATIC))
    return app


def _load_tokens() -> None:
    """Load the modules of the page of tokens."""
    from transformers import PreTrainedTokenizerFast  # noqa: F401

    from cohort.viewer import token_page  # noqa: F401


class _Headers:
    """Gives every answer the headers `HEADERS`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, with_headers)


class _Failures:
    """Answers a request that fails, rather than letting it end in a traceback: what runs store may be of any kind."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except Exception as error:
            if begun:
                raise
            detail = f"this cannot be shown: {type(error).__name__}: {printable(first_line(error))}"
            await JSONResponse({"detail": detail}, status_code=500)(scope, receive, send)


def _head(followed: Followed) -> dict[str, Any]:
    try:
        with followed.fresh() as run:
            return {
                "name": followed.name,
                "state": followed.state,
                "written": followed.written,
                "problems": followed.problems,
                **query.status(run),
            }
    except Exception as error:
        # One run of a kind that nobody thought of must not take the others with it.
        said = f"{followed.run.folder} cannot be read: {type(error).__name__}: {first_line(error)}"
        head = {"name": followed.name, "state": "broken", "written": 0.0, "problems": [printable(said)]}
        return {**head, **query.status(Run(followed.run.folder))}


def _there(found: dict[str, Any] | None, followed: Followed, step: int, lacks: str = "") -> dict[str, Any]:
    """What was found, or an answer that says why there is nothing."""
    if found is not None:
        return found
    path = followed.run.rollout_path(step)
    said = [problem for problem in followed.problems if printable(str(path)) in problem]
    if said:
        why = said[0]
    elif not os.path.exists(path):
        stored = followed.run.steps()
        near = f"; there are {len(stored)} steps, {stored[0]} to {stored[-1]}" if stored else ""
        why = f"the run {followed.name} has no rollouts of step {step}{near}"
    else:
        why = f"step {step} of the run {followed.name} {lacks}"
    raise HTTPException(404, why)


def listen(host: str, port: int | None) -> socket.socket:
    """A listening socket.

    Args:
        host: name or address to listen on.
        port: 0 takes any free one; None takes `PORT` or one of those after it.

    Raises:
        UsageError: the port is taken, or there is no such host.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise UsageError(f"--host {host}: this machine has no such name or address ({error.strerror})") from error
    candidates = [port] if port is not None else [*range(PORT, PORT + PORTS_TRIED), 0]
    for candidate in candidates:
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((address[0], candidate))
            made.listen(128)
        except OSError as error:
            made.close()
            if candidate != candidates[-1]:
                continue
            raise UsageError(
                f"cannot listen on {host} port {candidate}: {(error.strerror or str(error)).lower()}; "
                "name another with --port, or leave it away to take a free one"
            ) from error
        return made
    raise AssertionError("unreachable: the last candidate is taken or refused")


def is_loopback(host: str) -> bool:
    """True if only this machine reaches it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def view(
    folders: Sequence[Path],
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    browser: bool = True,
    log: Callable[[str], None] = print,
) -> None:
    """Show runs until interrupted.

    Args:
        folders: of runs, or folders that hold runs; none: all under `runs/`.
        host: where to listen; anything but the loopback lets others in the network read.
        port: as in `listen`.
        browser: open the page in the user's browser.

    Raises:
        UsageError: a folder holds no run; the port is taken.
    """
    if not folders and not os.path.isdir("runs"):
        raise UsageError("there is no folder runs/ here: name the folder of a run (`cohort train` makes one)")
    index = RunIndex(folders or [Path("runs")])
    with listen(host, port) as opened:
        number = opened.getsockname()[1]
        local = is_loopback(host)
        address = f"http://{_shown(host)}:{number}/"
        hosts = ["127.0.0.1", "localhost", "[::1]", _shown(host)] if local else ["*"]
        runs = index.all()
        log(
            f"{len(runs)} run{'s' * (len(runs) != 1)}: {', '.join(each.name for each in runs[:8])}{' ...' * (len(runs) > 8)}"
        )
        if not local:
            log(f"listening on {host}: anybody in the network can read these runs, prompts and completions")
        log(f"{address}   (Ctrl-C ends it)")
        if browser:
            threading.Timer(0.5, webbrowser.open, [address]).start()
        # Ctrl-C ends it at once, whatever a page still waits for; what cannot be answered is said to who asked.
        config = uvicorn.Config(
            application(index, hosts=hosts), log_level="critical", access_log=False, timeout_graceful_shutdown=1
        )
        try:
            uvicorn.Server(config).run(sockets=[opened])
        except KeyboardInterrupt:
            log("ended")


def _shown(host: str) -> str:
    """As it stands in an address."""
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host
