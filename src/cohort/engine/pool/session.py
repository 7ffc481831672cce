"""A session of a pool: requests that are drawn by whoever has room."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from cohort.engine.base import Completion, Sampling, context_of
from cohort.engine.pool.dealing import Job, Load, deal
from cohort.engine.pool.messages import End, Forget, Submit, slim
from cohort.errors import EngineError
from cohort.types import Request

if TYPE_CHECKING:
    from cohort.engine.pool.pool import EnginePool, Member

# Seconds between two looks at whether to wait on, and at whether members are well.
POLL, WATCH = 0.02, 0.5
# Members that a request may take with it before it is taken to be what they die of.
DEATHS = 5


class PoolSession:
    """See `cohort.engine.base.Session`.

    Attributes:
        id: of it in the pool; version: of the weights that it draws with.
        alive: by number, what was submitted and is not drawn.
    """

    def __init__(self, pool: EnginePool, number: int, sampling: Sampling, version: int) -> None:
        self.pool, self.id, self.sampling, self.version = pool, number, sampling, version
        self.alive: dict[int, Request] = {}
        self._count, self._ended = 0, False
        # Drawn, and not given yet; what went wrong; what no member has; why members were lost that had it.
        self._done: deque[tuple[int, Completion]] = deque()
        self._error: Exception | None = None
        self._pending: dict[int, Job[Member]] = {}
        self._deaths: dict[int, list[str]] = {}
        self._woken: SimpleQueue[None] = SimpleQueue()
        # By what was drawn, and before it, as a key: the member that keeps it. Of each number: that, its ticket and the key.
        self._keepers: dict[int, Member] = {}
        self._kept: dict[int, tuple[Member, int, int]] = {}
        # By member, the prompts that it was given.
        self._prompts: dict[Member, set[object]] = {}

    @property
    def waiting(self) -> int:
        """See Session."""
        return len(self.alive) + len(self._done)

    def submit(self, request: Request) -> int:
        """See Session; who draws it is settled when next something is waited for.

        Raises:
            UsageError: members cannot draw it.
        """
        self.pool.check(request, self.sampling)
        with self.pool.lock:
            number, self._count = self._count, self._count + 1
            self.alive[number] = request
            self._pending[number] = self._job(number, request)
        return number

    def forget(self, number: int) -> None:
        """See Session."""
        with self.pool.lock:
            if number in self._kept:
                member, ticket, key = self._kept.pop(number)
                self._keepers.pop(key, None)
                member.link.send(Forget(self.id, ticket))

    def end(self) -> None:
        """See Session."""
        with self.pool.lock:
            self._ended = True
            self._deal()
            for member in self.pool.members:
                if member.alive and self.id in member.sessions:
                    member.link.send(End(self.id))

    def next(self) -> tuple[int, Completion]:
        """See Session.

        Raises:
            EngineError: no member has been there for too long, or a request takes every member with it.
        """
        found = self._next(None)
        assert found is not None
        return found

    def next_unless(self, stop: Callable[[], bool]) -> tuple[int, Completion] | None:
        """See Session; raises as `next` does."""
        return self._next(stop)

    def close(self) -> None:
        """See Session."""
        self.pool.leave(self)
        self.alive, self._done, self._pending = {}, deque(), {}

    def _next(self, stop: Callable[[], bool] | None) -> tuple[int, Completion] | None:
        if not self.waiting:
            raise LookupError("no request is waiting to be drawn")
        watched = time.monotonic()
        while True:
            with self.pool.lock:
                if self._error is not None:
                    raise self._error
                self._deal()
                if self._done:
                    return self._done.popleft()
            if stop is not None and stop():
                return None
            with contextlib.suppress(Empty):
                self._woken.get(timeout=WATCH if stop is None else POLL)
            if time.monotonic() - watched > WATCH:
                watched = time.monotonic()
                self.pool.watch()

    # with the pool's lock held -------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Something has changed."""
        self._woken.put(None)

    def finish(self, member: Member, number: int, ticket: int, completion: Completion) -> None:
        """A member has drawn a request."""
        request = self.alive.pop(number)
        self._deaths.pop(number, None)
        self._done.append((number, completion))
        if not self._ended:
            key = hash((*context_of(request), *completion.tokens))
            self._keepers[key] = member
            self._kept[number] = member, ticket, key

    def draw_again(self, number: int, why: str) -> None:
        """The member that had a request is lost."""
        deaths = self._deaths.setdefault(number, [])
        deaths.append(why)
        self._pending[number] = self._job(number, self.alive[number])
        if len(deaths) >= DEATHS:
            self.fail(
                EngineError(
                    f"{DEATHS} workers were lost while they drew the same request, which may be what they die of: "
                    f"{'; '.join(deaths)}"
                )
            )

    def without(self, member: Member) -> None:
        """A member is lost, with all that it kept."""
        self._prompts.pop(member, None)
        self._keepers = {key: each for key, each in self._keepers.items() if each is not member}
        self._kept = {number: kept for number, kept in self._kept.items() if kept[0] is not member}

    def fail(self, error: Exception) -> None:
        """It cannot go on."""
        self._error = self._error or error

    def _job(self, number: int, request: Request) -> Job[Member]:
        place = len(request.prefix)
        prompt = request.context.at(place)[1].tokens
        keeper, at = None, 0
        for segment in request.history:
            at += len(segment)
            if segment.writer == "policy":
                place = at
        if request.history and self._keepers:
            keeper = self._keepers.get(hash(request.context.before(request.prefix[:place])))
        return Job(number, prompt, len(prompt), request.max_new_tokens, keeper)

    def _deal(self) -> None:
        """Give members what is pending, as far as they have room."""
        if not self._pending:
            return
        members = [member for member in self.pool.members if member.alive]
        loads = {
            member: Load(self.pool.slots - len(member.tickets), member.cost, self._prompts.setdefault(member, set()))
            for member in members
        }
        if not any(load.room > 0 for load in loads.values()):
            return
        for member, number in deal(list(self._pending.values()), loads):
            del self._pending[number]
            request, ticket = self.alive[number], self.pool.ticket()
            self.pool.take_on(member, ticket, self, number)
            member.link.send(Submit(self.id, ticket, slim(request)))
            if self._ended and not self._pending:
                for each in members:
                    if self.id in each.sessions:
                        each.link.send(End(self.id))
