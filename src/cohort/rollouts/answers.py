"""Calls of environments, and their answers: at once, or while other rollouts are sampled."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Who = TypeVar("Who")
# Seconds that environments have to close when a run is given up.
GRACE = 5.0


@dataclass(frozen=True)
class Answered(Generic[Who]):
    """What came of a call.

    Attributes:
        who: asked.
        value: what it gave; None if it failed.
        error: what it raised, if anything.
    """

    who: Who
    value: Any = None
    error: BaseException | None = None


class Answers(Generic[Who]):
    """Calls of environments. Those of plain functions are answered when they return, futures when they are done; coroutines
    run in a thread of their own, and whoever waits for another's answer meets `came`.

    Nothing here bounds what an environment takes: those of `cohort.environments.pool` keep to a time limit.
    """

    def __init__(self) -> None:
        self.ready: deque[Answered[Who]] = deque()
        self.pending = 0
        self._arrived = threading.Condition()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def ask(self, who: Who, call: Callable[[], Any]) -> None:
        """Have a call made; its answer comes by `take`."""
        try:
            value = call()
        except (Exception, SystemExit) as error:
            self.ready.append(Answered(who, error=error))
            return
        if isinstance(value, Future):
            # Somebody answers it already, in another thread.
            with self._arrived:
                self.pending += 1
            value.add_done_callback(lambda done: self._arrive(who, done))
            return
        if not inspect.isawaitable(value):
            self.ready.append(Answered(who, value))
            return
        with self._arrived:
            self.pending += 1
        future = asyncio.run_coroutine_threadsafe(_awaited(value), self._running())
        future.add_done_callback(lambda done: self._arrive(who, done))

    def came(self) -> bool:
        """Whether there is an answer to take."""
        return bool(self.ready)

    def take(self) -> Answered[Who] | None:
        """An answer that is there; None if there is none."""
        return self.ready.popleft() if self.ready else None

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for an answer; False if none came in time."""
        with self._arrived:
            return self._arrived.wait_for(self.came, seconds)

    def close(self) -> None:
        """Give up what is not answered."""
        if self._loop is None or self._thread is None:
            return
        loop = self._loop
        asyncio.run_coroutine_threadsafe(_cancelled(), loop)
        self._thread.join(GRACE)
        if not self._thread.is_alive():
            loop.close()

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="environments", daemon=True)
            self._thread.start()
        return self._loop

    def _arrive(self, who: Who, done: Future[Any]) -> None:
        try:
            answer: Answered[Who] = Answered(who, done.result())
        except BaseException as error:  # whatever it was, it ended that environment, in another thread
            answer = Answered(who, error=error)
        with self._arrived:
            self.pending -= 1
            self.ready.append(answer)
            self._arrived.notify_all()


async def _awaited(value: Any) -> Any:
    try:
        return await value
    except SystemExit as error:  # it would end the loop, and with it all others' answers
        raise RuntimeError(f"it asked to end the process (SystemExit: {error.code})") from error


async def _cancelled() -> None:
    """Cancel all else in this loop, and stop it."""
    loop = asyncio.get_running_loop()
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    with contextlib.suppress(BaseException):
        await asyncio.wait_for(asyncio.gather(*others, return_exceptions=True), GRACE / 2)
    loop.stop()
