"""An environment that lives in a process of a pool, as the run sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from cohort.environments.base import Gone, Late, Observation, Step
from cohort.environments.pool import Answer, Host, Pool
from cohort.rewards.lent import Lent
from cohort.rewards.sending import pickled
from cohort.types import Message


class Remote:
    """An environment that lives in another process; see `cohort.environments.Environment`."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.home: tuple[Host, int] | None = None
        self.lost = False

    def reset(self, row: Mapping[str, Any], seed: int) -> Answer:
        """Make it, and begin its episode."""
        given = pickled((dict(row), seed))
        self.home = self.pool.place()
        return self._ask("reset", given, as_observation)

    def step(self, message: Message) -> Answer:
        """See Environment."""
        return self._ask("step", pickled((message,)), as_step)

    def finish(self) -> Answer:
        """See EnvironmentFactory."""
        return self._ask("finish", pickled(()), as_step)

    def lend(self) -> Answer:
        """See EnvironmentFactory."""
        return self._ask("lend", read=lambda found: Lent(**found))

    def close(self) -> Answer | None:
        """See Environment; one that hangs, or whose process is gone, is left alone."""
        if self.home is None or self.lost:
            return None
        (host, number), self.lost = self.home, True
        if host.dead:
            return None
        closed, asked = Answer(), self._ask("close")

        def tell(done: Future[Any]) -> None:
            error = done.exception()
            self.pool.leave(host, number, hangs=isinstance(error, Late))
            # What its process held is gone with it.
            if error is None or isinstance(error, Gone):
                closed.set_result(None)
            else:
                closed.set_exception(error)

        asked.add_done_callback(tell)
        return closed

    def _ask(self, what: str, given: bytes = b"", read: Callable[[Any], Any] | None = None) -> Answer:
        assert self.home is not None
        host, number = self.home
        answer = self.pool.ask(host, number, what, given, read)
        answer.add_done_callback(self._arrived)
        return answer

    def _arrived(self, done: Future[Any]) -> None:
        if isinstance(done.exception(), Late) and self.home is not None and not self.lost:
            self.lost = True
            self.pool.leave(*self.home, hangs=True)


def as_observation(found: Mapping[str, Any]) -> Observation:
    """An observation from its attributes, as they were sent."""
    return Observation(**found)


def as_step(found: Mapping[str, Any]) -> Step:
    """A step from its attributes, as they were sent."""
    seen = found["observation"]
    return Step(**{**found, "observation": None if seen is None else as_observation(seen)})
