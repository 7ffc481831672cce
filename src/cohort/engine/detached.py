"""An engine that draws in another thread than training goes on in, with weights of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from cohort.engine.base import Completion, Copying, Engine, Measured, Sampling, Session, complete
from cohort.policies.replica import take_over
from cohort.seeds import derive
from cohort.types import Request, Segment
from cohort.types.policy import Policy


class GivenUp(BaseException):
    """What was being drawn is not wanted any more. No Exception, so that nothing on the way takes it for a failure."""


# Tokens after which a rollout is looked at, where it may go on with other weights.
CHUNK = 64


class Detached:
    """See `cohort.engine.base.Engine`: one that knows of new weights when `take_over` says so, and not by `sync`.

    Args:
        inner: draws with the weights of `policy`, of which `sync` tells it.
        policy: a replica of the trained one (see `cohort.policies.replica`).

    Attributes:
        drawing: held by whoever draws.
        stopped: set when nothing more is to be drawn: sessions raise GivenUp from then on, those that are open too.
        newer: gives the version and weights that rollouts in flight go on with, None where there are no newer ones. Without it
            they end with the weights that they began with.
        partial: with newer weights, rollouts in flight end unfinished where they are, in place of going on.
    """

    def __init__(self, inner: Engine, policy: Policy) -> None:
        self.inner, self.policy, self.exact = inner, policy, inner.exact
        self.drawing, self.stopped = threading.RLock(), threading.Event()
        self.newer: Callable[[], tuple[int, Sequence[Tensor]] | None] | None = None
        self.partial = False
        self.version = 0
        self._held: Sequence[Tensor] | None = None

    def take_over(self, version: int, weights: Sequence[Tensor]) -> None:
        """Draw with other weights from now on (see `weights_of`); no session is open, and nobody else is `drawing`."""
        if weights is not self._held:
            take_over(self.policy, weights)
            self.inner.sync()
        self.version, self._held = version, weights

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """See Engine."""
        return complete(self.session(sampling), requests)

    def session(self, sampling: Sampling) -> DetachedSession:
        """See Engine."""
        if self.newer is not None:
            return MovingSession(self, sampling)
        return DetachedSession(self.inner.session(sampling), self.stopped)

    def sync(self) -> None:
        """Does nothing: what is being drawn ends with the weights that it began with."""

    def not_taken_over(self) -> list[str]:
        """See Copying."""
        with self.drawing:
            return self.inner.not_taken_over() if isinstance(self.inner, Copying) else []

    def metrics(self) -> dict[str, float]:
        """See Measured."""
        return self.inner.metrics() if isinstance(self.inner, Measured) else {}

    def close(self) -> None:
        """See Engine."""
        self.inner.close()


class DetachedSession:
    """See `cohort.engine.base.Session`."""

    def __init__(self, inner: Session, stopped: threading.Event) -> None:
        self.inner, self.stopped = inner, stopped

    @property
    def waiting(self) -> int:
        """See Session."""
        return self.inner.waiting

    def submit(self, request: Request) -> int:
        """See Session."""
        self._look()
        return self.inner.submit(request)

    def forget(self, number: int) -> None:
        """See Session."""
        self.inner.forget(number)

    def end(self) -> None:
        """See Session."""
        self.inner.end()

    def next(self) -> tuple[int, Completion]:
        """See Session."""
        found = None
        while found is None:
            found = self.next_unless(lambda: False)
        return found

    def next_unless(self, stop: Callable[[], bool]) -> tuple[int, Completion] | None:
        """See Session."""
        self._look()
        found = self.inner.next_unless(lambda: self.stopped.is_set() or stop())
        self._look()
        return found

    def close(self) -> None:
        """See Session."""
        self.inner.close()

    def _look(self) -> None:
        if self.stopped.is_set():
            raise GivenUp


class MovingSession(DetachedSession):
    """A session whose rollouts go on with newer weights as soon as there are some.

    Rollouts are drawn CHUNK tokens at a time. Once there are newer weights, each stops where its piece ends; when all have, the
    weights are taken over, and what stands there is read again with them. Each piece of a rollout has a seed of its own. Where
    the engine is `partial`, what has stopped is given as it is.
    """

    def __init__(self, engine: Detached, sampling: Sampling) -> None:
        super().__init__(engine.inner.session(sampling), engine.stopped)
        self.engine, self.sampling, self.count = engine, sampling, 0
        # By number, the request, and what was drawn for it with which weights; those that wait for other weights.
        self.asked: dict[int, tuple[Request, list[tuple[int, Completion]]]] = {}
        self.held: list[int] = []
        # The inner session's numbers -> those given out here; and these -> the number of what was drawn last.
        self.numbers: dict[int, int] = {}
        self.last: dict[int, int] = {}

    @property
    def waiting(self) -> int:
        """See Session."""
        return len(self.asked)

    def submit(self, request: Request) -> int:
        """See Session."""
        self._look()
        number, self.count = self.count, self.count + 1
        self.asked[number] = request, []
        self._order(number)
        return number

    def forget(self, number: int) -> None:
        """See Session."""
        if number in self.last:
            self.inner.forget(self.last.pop(number))

    def end(self) -> None:
        """Does nothing: what goes on comes as a further request."""

    def next_unless(self, stop: Callable[[], bool]) -> tuple[int, Completion] | None:
        """See Session."""
        while True:
            self._look()
            if self.held and not self.inner.waiting:
                self._move()
            found = self.inner.next_unless(lambda: self.stopped.is_set() or stop())
            self._look()
            if found is None:
                return None
            number, completion = self.numbers.pop(found[0]), found[1]
            request, parts = self.asked[number]
            parts.append((self.engine.version, completion))
            self.forget(number)
            self.last[number] = found[0]
            moved = self._newer() is not None
            left = request.max_new_tokens - sum(len(part.tokens) for _, part in parts[:-1])
            # Where the engine gives less than was asked for, nothing more will come.
            whole = completion.finished or len(completion.tokens) < CHUNK or left <= CHUNK or request.mixer is not None
            if whole or (moved and self.engine.partial):
                del self.asked[number]
                return number, _merged(parts)
            if moved:
                self.held.append(number)
            else:
                self._order(number)

    def _newer(self) -> tuple[int, Sequence[Tensor]] | None:
        return None if self.engine.newer is None else self.engine.newer()

    def _order(self, number: int) -> None:
        """Have a request's next piece drawn."""
        request, parts = self.asked[number]
        if request.mixer is None:
            drawn = [Segment(tuple(part.tokens)) for _, part in parts]
            left = request.max_new_tokens - sum(map(len, drawn))
            seed = derive(request.seed, "piece", len(parts)) if parts else request.seed
            history = (*request.history, *drawn)
            request = replace(request, history=history, seed=seed, max_new_tokens=min(left, CHUNK))
        self.numbers[self.inner.submit(request)] = number

    def _move(self) -> None:
        """Take over the newest weights, and go on with those that waited for them."""
        newer = self._newer()
        self.inner.close()
        if newer is not None:
            self.engine.take_over(*newer)
        self.inner = self.engine.inner.session(self.sampling)
        self.numbers, self.last = {}, {}
        held, self.held = self.held, []
        for number in held:
            self._order(number)


def _merged(parts: Sequence[tuple[int, Completion]]) -> Completion:
    """What was drawn in pieces, as one; those of one version are one part."""
    runs: dict[int, list[Completion]] = {}
    for version, part in parts:
        runs.setdefault(version, []).append(part)
    whole = [(version, _joined(run)) for version, run in runs.items()]
    return replace(_joined([part for _, part in parts]), parts=whole)


def _joined(run: Sequence[Completion]) -> Completion:
    if len(run) == 1:
        return run[0]

    def numbers(name: str) -> Any:
        values = [getattr(each, name) for each in run]
        return None if any(value is None for value in values) else [each for value in values for each in value]

    lists = ("tokens", "logp", "sampled_logp", "entropy", "candidates", "policy_logp", "soft")
    return Completion(**{name: numbers(name) for name in lists}, finished=run[-1].finished, stop=run[-1].stop)
