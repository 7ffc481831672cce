"""An environment that lives in a process of a pool, as the run sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from cohort.environments.base import EnvironmentFailed, Gone, Late, Observation, Step
from cohort.environments.pool import Answer, Host, Pool
from cohort.rewards.lent import Lent
from cohort.rewards.sending import pickled
from cohort.types import Message


class Remote:
    """An environment that lives in another process; see `cohort.environments.Environment`.

    Where its process dies while it was not asked anything, it is made anew in another one, and lives through what it had
    answered again: the same row, seed and messages give the same answers.
    """

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.home: tuple[Host, int] | None = None
        self.lost = False
        # What it was asked, and what it answered.
        self.asked: list[bytes] = []
        self.answered: list[Any] = []

    def reset(self, row: Mapping[str, Any], seed: int) -> Answer:
        """Make it, and begin its episode."""
        given = pickled((dict(row), seed))
        self.home = self.pool.place()
        return self._live(given)

    def step(self, message: Message) -> Answer:
        """See Environment."""
        given = pickled((message,))
        assert self.home is not None
        return self._again(given) if self.home[0].dead else self._live(given)

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
        closed = Answer()

        def tell(done: Future[Any]) -> None:
            error = done.exception()
            self.pool.leave(host, number, hangs=isinstance(error, Late))
            # What its process held is gone with it.
            _pass_on(None if isinstance(error, Gone) else error, None, closed)

        self._ask("close").add_done_callback(tell)
        return closed

    def _live(self, given: bytes) -> Answer:
        """Have it answer, and note what it was asked and answers."""
        answer = self._ask("step", given, as_step) if self.asked else self._ask("reset", given, as_observation)
        self.asked.append(given)
        answer.add_done_callback(lambda done: self.answered.append(None if done.exception() else done.result()))
        return answer

    def _again(self, given: bytes) -> Answer:
        """Live through all again in another process, and go on."""
        self.home = self.pool.place()
        asked, before = [*self.asked, given], self.answered
        self.asked, self.answered, whole = [], [], Answer()

        def go_on(done: Future[Any] | None = None) -> None:
            count = len(self.asked)
            error = None if done is None else done.exception()
            if done is not None and error is None and count <= len(before) and done.result() != before[count - 1]:
                error = EnvironmentFailed(
                    "its process died, and when it was lived through again in another one it answered differently: with the "
                    "same row, seed and messages it must give the same answers"
                )
            if error is not None or (done is not None and count == len(asked)):
                _pass_on(error, None if error or done is None else done.result(), whole)
            else:
                self._live(asked[count]).add_done_callback(go_on)

        go_on()
        return whole

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


def _pass_on(error: BaseException | None, value: Any, to: Answer) -> None:
    if error is None:
        to.set_result(value)
    else:
        to.set_exception(error)


def as_observation(found: Mapping[str, Any]) -> Observation:
    """An observation from its attributes, as they were sent."""
    return Observation(**found)


def as_step(found: Mapping[str, Any]) -> Step:
    """A step from its attributes, as they were sent."""
    seen = found["observation"]
    return Step(**{**found, "observation": None if seen is None else as_observation(seen)})
