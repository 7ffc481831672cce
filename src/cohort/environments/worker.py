"""The process in which environments live: `python -m cohort.environments.worker`.

It reads calls from standard input, as pickles of its parent's, and writes answers to standard output, as JSON, both in
frames. Calls are answered as they are done: a plain method runs in a thread that its environment keeps for life, a
coroutine in the event loop. What environments print goes to standard error; they find standard input empty.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import pickle
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from types import FrameType
from typing import IO, Any

from cohort.environments import tools
from cohort.environments.base import Observation, Step, observed
from cohort.environments.spec import EnvironmentSpec, Maker, waits
from cohort.errors import UsageError, shown
from cohort.rewards.frames import read_frame, write_frame
from cohort.rewards.lent import Lent
from cohort.rewards.worker import Streams, end_with, outlast_signals

# Most bytes of an answer.
LARGEST = 16_000_000
# Characters of an error, and of where an environment is.
ERROR, PLACE = 2000, 600


class Home:
    """One environment, its thread, and where it is."""

    def __init__(self, maker: Maker) -> None:
        self.maker, self.waits = maker, maker.waits or inspect.iscoroutinefunction(maker.make)
        self.environment: Any = None
        self.thread: ThreadPoolExecutor | None = None
        self.ident: int | None = None
        self.task: asyncio.Task[Any] | None = None

    async def make(self) -> None:
        """Make the environment."""
        self.environment = await self._run(self.maker.make)
        self.waits = waits(self.environment)

    async def call(self, what: str, *given: Any) -> Any:
        """Call one of its methods."""
        method = getattr(self.environment, what, None)
        if not callable(method):
            raise TypeError(f"{type(self.environment).__name__} has no {what}")
        return await self._run(method, *given)

    async def close(self) -> None:
        """Close it, if it has something for that, and end its thread."""
        try:
            if self.environment is not None and callable(getattr(self.environment, "close", None)):
                await self.call("close")
        finally:
            if self.thread is not None:
                self.thread.shutdown(wait=False)

    def where(self) -> str:
        """The line of the user's in which it is; empty if it is not known."""
        frames: list[FrameType] = []
        if self.waits and self.task is not None:
            waiting: Any = self.task.get_coro()
            while (frame := getattr(waiting, "cr_frame", None)) is not None:
                frames.append(frame)
                waiting = waiting.cr_await
        elif self.ident is not None and (frame := sys._current_frames().get(self.ident)) is not None:
            frames = [frame for frame, _ in traceback.walk_stack(frame)][::-1]
        places = [(frame.f_code.co_filename, frame.f_lineno) for frame in frames]
        own = [place for place in places if not of_machinery(place[0])]
        return f"{own[-1][0]}, line {own[-1][1]}"[-PLACE:] if own else ""

    async def _run(self, function: Callable[..., Any], *given: Any) -> Any:
        if self.waits:
            self.task = asyncio.current_task()
            value = function(*given)
        else:
            self.thread = self.thread or ThreadPoolExecutor(1, thread_name_prefix="environment")
            value = await asyncio.get_running_loop().run_in_executor(self.thread, self._here, function, *given)
        return await value if inspect.isawaitable(value) else value

    def _here(self, function: Callable[..., Any], *given: Any) -> Any:
        self.ident, pid = threading.get_ident(), os.getpid()
        try:
            return function(*given)
        finally:
            if os.getpid() != pid:
                # A child that the environment forked and that came back from it in its parent's place.
                os._exit(0)


class House:
    """All environments of this process.

    Args:
        write: sends an answer.
    """

    def __init__(self, write: Callable[[bytes], None], streams: Streams) -> None:
        self.write, self.streams = write, streams
        self.maker: Maker | None = None
        self.loaded = asyncio.Event()
        self.problem: BaseException | None = None
        self.homes: dict[int, Home] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    def take(self, message: dict[str, Any]) -> None:
        """Begin to answer a call."""
        task = asyncio.ensure_future(self._answer(message))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _answer(self, message: dict[str, Any]) -> None:
        try:
            reply = _encoded({"value": await self._do(message)})
        except BaseException as error:
            reply = _encoded(failure(error))
        self.streams.renew()
        self.write(json.dumps(message["number"]).encode() + b" " + reply)

    async def _do(self, message: dict[str, Any]) -> Any:
        what, to = message["do"], message.get("to", 0)
        if what == "load":
            return await self._load(message)
        if what == "where":
            return self.homes[to].where() if to in self.homes else ""
        await self.loaded.wait()
        if self.maker is None:
            raise UsageError(f"it was not loaded: {self.problem}")
        if what == "check":
            return await self._check(self.maker)
        if what == "rows":
            rows = self.maker.rows(message["held_out"])
            return None if rows is None else [dict(row) for row in rows]
        if what == "close":
            home = self.homes.pop(to, None)
            return None if home is None else await home.close()
        if what == "lend":
            return vars(lend(tools.lent_by(self.homes[to].environment)))
        given = pickle.loads(message["given"])
        if what == "reset":
            home = self.homes[to] = Home(self.maker)
            await home.make()
            return plain(observed(await home.call("reset", *given), first=True))
        step = await self.homes[to].call(what, *given)
        if not isinstance(step, Step):
            raise TypeError(f"{what} gives a cohort.environments.Step, not {type(step).__name__} ({shown(step, 80)})")
        seen = None if step.done or step.observation is None else plain(observed(step.observation))
        return {**plain(step), "observation": seen}

    async def _load(self, message: dict[str, Any]) -> None:
        sys.path += [entry for entry in message["path"] if entry not in sys.path]
        try:
            spec: EnvironmentSpec = pickle.loads(message["spec"])
            self.maker = await asyncio.get_running_loop().run_in_executor(None, spec.load)
        except BaseException as error:
            self.problem = error
            raise
        finally:
            self.loaded.set()

    async def _check(self, maker: Maker) -> dict[str, Any]:
        """One can be made, has what an environment has, and can be closed; what there is to know of it."""
        if maker.several:
            return _together({name: await self._check(each) for name, each in maker.several.items()})
        home = Home(maker)
        await home.make()
        lacking = [what for what in ("reset", "step") if not callable(getattr(home.environment, what, None))]
        if lacking:
            raise UsageError(
                f"what it makes, {type(home.environment).__name__} ({shown(home.environment, 80)}), has no "
                f"{' and no '.join(lacking)}: an environment has reset(row, seed) and step(message)"
            )
        offer = {"components": maker.components, "rewards": maker.rewards, "turns": maker.turns}
        if isinstance(home.environment, tools.ToolEnvironment):
            offer |= await asyncio.get_running_loop().run_in_executor(None, home.environment.offer)
        await home.close()
        return offer


def _together(offers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What there is to know of several environments."""
    components = dict.fromkeys(name for offer in offers.values() for name in offer["components"])
    return {
        "components": [*components],
        "rewards": any(offer["rewards"] for offer in offers.values()),
        "finishes": any(offer.get("finishes", False) for offer in offers.values()),
        "tools": {name: offer.get("tools", {}).get("", []) for name, offer in offers.items()},
    }


def lend(environment: Any) -> Lent:
    """An environment as reward functions are given it, with the file that its class comes from."""
    module = sys.modules.get(type(environment).__module__)
    own = module is not None and any(each is module for each in tools.MODULES.values())
    return Lent.of(environment, str(module.__file__), module.__name__) if own and module else Lent.of(environment)


def plain(value: Observation | Step) -> dict[str, Any]:
    """Its attributes, by name."""
    return {each.name: getattr(value, each.name) for each in fields(value)}


def _encoded(reply: dict[str, Any]) -> bytes:
    try:
        data = json.dumps(reply, default=_simple).encode()
    except (TypeError, ValueError, RecursionError) as error:
        return json.dumps({"error": f"what it gave cannot be sent ({error})"[:ERROR]}).encode()
    if len(data) > LARGEST:
        return json.dumps(
            {"error": f"its answer has {len(data) / 1e6:.0f} MB, of at most {LARGEST / 1e6:.0f}"}
        ).encode()
    return data


def _simple(value: Any) -> Any:
    """A value that JSON does not know, as one that it does."""
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        return value.item()
    if hasattr(value, "tolist"):
        return value.tolist()
    kind = type(value)
    raise TypeError(f"it holds {kind.__module__}.{kind.__qualname__}; texts, numbers, lists and mappings can be sent")


def of_machinery(file: str) -> bool:
    """True for a file that calls environments, and is none."""
    folder = os.path.dirname(file)
    return file == __file__ or os.path.basename(folder) in ("asyncio", "futures") or file == threading.__file__


def failure(error: BaseException) -> dict[str, Any]:
    """What a call came to that failed: what was raised, and in which line."""
    try:
        text = str(error) if isinstance(error, UsageError) else f"{type(error).__name__}: {error}".rstrip(": ")
    except Exception:
        text = type(error).__name__
    if isinstance(error, SystemExit):
        text = f"it asked to end the process (SystemExit: {error.code})"
    frames = traceback.extract_tb(error.__traceback__)
    at = next((frame for frame in reversed(frames) if not of_machinery(frame.filename)), None)
    at = None if at is None or at.filename.startswith(os.path.dirname(__file__)) else at
    place = f" ({at.filename}, line {at.lineno})" if at and not isinstance(error, UsageError) else ""
    return {"error": text[:ERROR] + place[-PLACE:]}


def _read(requests: IO[bytes], house: House, loop: asyncio.AbstractEventLoop) -> None:
    """Hand calls over, until the parent goes away."""
    while True:
        try:
            message = pickle.loads(read_frame(requests))
        except EOFError:
            # Threads that environments started do not keep it alive.
            os._exit(0)
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(house.take, message)


async def _serve(requests: IO[bytes], replies: IO[bytes], streams: Streams) -> None:
    house = House(lambda data: write_frame(replies, data), streams)
    threading.Thread(
        target=_read, args=(requests, house, asyncio.get_running_loop()), daemon=True, name="calls"
    ).start()
    await asyncio.Event().wait()


def main() -> None:
    """Serve calls until the parent goes away."""
    if len(sys.argv) > 1:
        end_with(int(sys.argv[1]))
    outlast_signals()
    from cohort.quiet import quiet_command

    quiet_command()
    # Neither what an environment prints nor what it or a child of it reads may touch the messages.
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    streams = Streams()
    streams.renew()
    try:
        asyncio.run(_serve(requests, replies, streams))
    finally:
        os._exit(1)


if __name__ == "__main__":
    main()
