"""The event loop of asynchronous functions of the user's.

It is one for the life of the process: a semaphore, a client or a pool of connections of theirs belongs to the loop that
used it first, and fails in any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class Loop:
    """Runs awaitables to their end, several at once; in a thread of its own where a loop runs already (a notebook's)."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._thread: ThreadPoolExecutor | None = None

    def run(self, awaitables: Sequence[Awaitable[Any]]) -> list[Any]:
        """What each came to: its result, or the exception that it raised."""
        if self._thread is None and _running():
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="rewards")
        if self._thread is not None:
            return self._thread.submit(self._runner.run, _all(awaitables)).result()
        return self._runner.run(_all(awaitables))


def _running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _all(awaitables: Sequence[Awaitable[Any]]) -> list[Any]:
    return list(await asyncio.gather(*map(_settled, awaitables)))


async def _settled(awaitable: Awaitable[Any]) -> Any:
    try:
        return await awaitable
    except BaseException as error:
        # SystemExit, KeyboardInterrupt and what cancels itself would end the loop, and with it the others.
        return error


LOOP = Loop()
