"""An engine that draws in another thread than training goes on in, with weights of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from cohort.engine.base import Completion, Copying, Engine, Measured, Sampling, Session, complete
from cohort.policies.replica import take_over
from cohort.types import Request
from cohort.types.policy import Policy


class GivenUp(BaseException):
    """What was being drawn is not wanted any more. No Exception, so that nothing on the way takes it for a failure."""


class Detached:
    """See `cohort.engine.base.Engine`: one that knows of new weights when `take_over` says so, and not by `sync`.

    Args:
        inner: draws with the weights of `policy`, of which `sync` tells it.
        policy: a replica of the trained one (see `cohort.policies.replica`).

    Attributes:
        drawing: held by whoever draws.
        stopped: set when nothing more is to be drawn: sessions raise GivenUp from then on, those that are open too.
    """

    def __init__(self, inner: Engine, policy: Policy) -> None:
        self.inner, self.policy, self.exact = inner, policy, inner.exact
        self.drawing, self.stopped = threading.RLock(), threading.Event()
        self._held: Sequence[Tensor] | None = None

    def take_over(self, weights: Sequence[Tensor]) -> None:
        """Draw with other weights from now on (see `weights_of`); no session is open, and nobody else is `drawing`."""
        if weights is not self._held:
            take_over(self.policy, weights)
            self.inner.sync()
            self._held = weights

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """See Engine."""
        return complete(self.session(sampling), requests)

    def session(self, sampling: Sampling) -> DetachedSession:
        """See Engine."""
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
