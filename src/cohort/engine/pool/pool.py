"""One engine out of many members: processes, actors, servers, this process.

The pool owns the requests and the weights by version; members only draw. A member that is lost has nothing that is not here:
its requests are drawn again by others, with their seeds and their version, and so with the same tokens. One that comes, comes
back or lags is told where the weights of the version are, and takes them over before it draws with them.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from cohort.engine.base import Completion, Copying, Sampling, complete
from cohort.engine.pool.link import Link
from cohort.engine.pool.messages import Close, Done, Drop, Failed, Joined, Loaded, Lost, Offer, Open, Reply
from cohort.engine.pool.session import PoolSession
from cohort.engine.pool.weights import Shelf
from cohort.errors import EngineError, UsageError
from cohort.types import Request


@dataclass(eq=False)
class Member:
    """Who draws.

    Attributes:
        link: the way to it.
        shelf: where it fetches weights.
        alive: it can be told something; since: when that became so, or ceased to be, on the clock of `time.monotonic`.
        lost: times that it was lost after it had joined; why: the last reason.
        final: it will not come back; refused: it could not be reached before it had ever joined.
        versions, sessions: those that it knows of, and those that it has open.
        tickets: those of its requests -> the session and the number there.
        cost: most tokens that it still has to draw.
        heard: when it said last that something was done, or was given something to do after it had nothing.
        drawn, busy: tokens that it drew, and seconds in which it had something to draw, since metrics were taken.
    """

    link: Link
    shelf: Shelf
    alive: bool = False
    since: float = field(default_factory=time.monotonic)
    joined: int = 0
    lost: int = 0
    why: str = ""
    error: Exception | None = None
    final: bool = False
    refused: bool = False
    versions: set[int] = field(default_factory=set)
    sessions: set[int] = field(default_factory=set)
    tickets: dict[int, tuple[PoolSession, int]] = field(default_factory=dict)
    cost: float = 0.0
    heard: float = 0.0
    drawn: int = 0
    busy: float = 0.0

    @property
    def name(self) -> str:
        return self.link.name


class EnginePool:
    """See `cohort.engine.base.Engine`.

    Args:
        policy: its weights are what is drawn with, as they are when `sync` is called.
        members: (way to a member, where it fetches weights).
        exact: as of `Engine`: all members compute as the trainer does.
        slots: most requests that a member has at once.
        wait: seconds without a member after which drawing fails, and that starting may take.
        timeout: seconds that a member may take for a completion before it counts as lost.
        check: refuses what members cannot draw, before any is drawn.
        copies: members' copies of the weights, as far as it can be found out from here what does not reach them.
        after: called when the pool is closed and all have been left.
        log: is told who is lost and who is back.
    """

    def __init__(
        self,
        policy: Any,
        members: Sequence[tuple[Link, Shelf]],
        *,
        exact: bool = True,
        slots: int = 128,
        wait: float = 300.0,
        timeout: float = 600.0,
        check: Callable[[Request, Sampling], None] = lambda request, sampling: None,
        copies: Sequence[Copying] = (),
        after: Callable[[], None] = lambda: None,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.policy, self.exact, self.slots, self.wait, self.timeout = policy, exact, slots, wait, timeout
        self.check, self.copies, self.after, self.log = check, copies, after, log
        self.lock = threading.RLock()
        self.members = [Member(link, shelf) for link, shelf in members]
        self.version = 0
        # Version -> by shelf, what is offered of it.
        self._offers: dict[int, dict[int, Any]] = {}
        self._unpublished: Exception | None = None
        self._open: dict[int, PoolSession] = {}
        self._numbers, self._tickets = itertools.count(), itertools.count()
        self._changed = threading.Condition(self.lock)
        self._closed = False
        self._seconds = self._bytes = 0.0
        self._loads: dict[str, float] = {}
        self.redrawn = 0

    # members -------------------------------------------------------------------------------------------------------

    def start(self, least: int | None = None) -> None:
        """Reach the members, and wait until so many are there; None: all.

        Raises:
            UsageError: one refuses to start, or did not come within `wait` seconds; says why.
        """
        for member in self.members:
            member.link.start(lambda reply, member=member: self._hear(member, reply))  # type: ignore[misc]
        deadline = time.monotonic() + self.wait
        with self._changed:
            while sum(member.joined > 0 for member in self.members) < (least or len(self.members)):
                for member in self.members:
                    if member.error is not None:
                        raise member.error
                left = deadline - time.monotonic()
                late = [member for member in self.members if not member.joined]
                if left <= 0 or all(member.final for member in late):
                    raise UsageError(
                        f"not there after {self.wait:.0f} s (engine_wait): {self._gone()}. Where they are still loading the "
                        "model, a longer one waits for them"
                    )
                self._changed.wait(min(left, 1.0))

    def _hear(self, member: Member, reply: Reply) -> None:
        """What a member says, in its link's thread."""
        said = ""
        with self._changed:
            if self._closed:
                return
            match reply:
                case Joined():
                    if member.alive:  # it has started anew before anyone noticed
                        said = self._lose(member, Lost("it has started anew"))
                    member.alive, member.since, member.why = True, time.monotonic(), ""
                    member.versions, member.sessions = set(), set()
                    member.joined += 1
                    if member.joined > 1 and not said:
                        said = f"{member.name} is there again"
                case Lost():
                    said = self._lose(member, reply)
                case Loaded():
                    # What loads is well, however long the completions behind it take to come.
                    member.heard = time.monotonic()
                    self._bytes += reply.bytes
                    self._loads[member.name] = self._loads.get(member.name, 0.0) + reply.seconds
                case Done():
                    self._take(member, reply)
                case Failed():
                    for session in {session for session, _ in member.tickets.values()}:
                        session.fail(reply.error)
            self._changed.notify_all()
            for session in self._open.values():
                session.wake()
        if said:
            self.log(said)

    def _take(self, member: Member, done: Done) -> None:
        if done.ticket not in member.tickets:
            return  # of a session that was closed, or of before the member was lost
        session, number = self.release(member, done.ticket)
        member.drawn += len(done.completion.tokens)
        session.finish(member, number, done.ticket, done.completion)

    def release(self, member: Member, ticket: int) -> tuple[PoolSession, int]:
        """A member has no more to do with a ticket; whose it was."""
        session, number = member.tickets.pop(ticket)
        member.cost = member.cost - session.alive[number].max_new_tokens if member.tickets else 0.0
        now = time.monotonic()
        member.busy += now - member.heard
        member.heard = now
        return session, number

    def _lose(self, member: Member, lost: Lost) -> str:
        """A member is lost; what to say of it."""
        member.why, member.error, member.final = lost.why, lost.error, lost.final
        if lost.error is not None and not member.joined:  # what it was started for cannot be
            for session in self._open.values():
                session.fail(lost.error)
        if not member.alive:
            first, member.refused = not (member.joined or member.refused), True
            waits = first and not lost.final
            return (
                f"{member.name}: {lost.why}: waiting for it, {self.wait:.0f} s at most (engine_wait)" if waits else ""
            )
        member.alive, member.since = False, time.monotonic()
        member.lost += 1
        left = [self.release(member, ticket) for ticket in list(member.tickets)]
        for session in self._open.values():
            session.without(member)
        for session, number in left:
            session.draw_again(number, f"{member.name}: {lost.why}")
        self.redrawn += len(left)
        again = f": its {len(left)} requests are drawn again" if left else ""
        others = sum(each.alive for each in self.members)
        return f"{member.name} was lost ({lost.why}){again}; {others} of {len(self.members)} are there"

    def watch(self) -> None:
        """Find members that do not answer any more, and whether any is left.

        Raises:
            EngineError: there has been none for `wait` seconds, or none can come back.
        """
        now = time.monotonic()
        with self.lock:
            for member in self.members:
                if member.alive and member.tickets and now - member.heard > self.timeout:
                    member.heard = now
                    member.link.break_off(f"it completed nothing for {self.timeout:.0f} s (engine_timeout)")
            if any(member.alive for member in self.members):
                return
            since = max(member.since for member in self.members)
            if now - since > self.wait or all(member.final for member in self.members):
                waited = "" if now - since <= self.wait else f" for {self.wait:.0f} s (engine_wait)"
                raise EngineError(self._obituary(f"no worker is there{waited}"))

    def _gone(self) -> str:
        gone = [f"{each.name} ({each.why or 'no answer'})" for each in self.members if not each.alive]
        return "; ".join(gone)

    def _obituary(self, what: str) -> str:
        """Who is gone, how, and what to do."""
        return (
            f"{what}: {self._gone()}. Look at what the workers wrote last, bring them back and continue with --resume; "
            "engine_wait is the time that is waited for them"
        )

    # weights -------------------------------------------------------------------------------------------------------

    def sync(self) -> None:
        """The weights have changed: what is drawn in later sessions is drawn with them as they are now.

        A failure is raised when next something is drawn: at once it would fall between an update and its step's record, and
        the step would be lost.
        """
        with self.lock:
            self.version += 1
        self.publish()

    def publish(self) -> None:
        """Put the weights where members fetch them."""
        began = time.perf_counter()
        offers: dict[int, Any] = {}
        failed: Exception | None = None
        with self.lock:
            shelves, version = {id(each.shelf): each.shelf for each in self.members}, self.version
        try:
            for key, shelf in shelves.items():
                offers[key] = shelf.put(version, self.policy)
        except (OSError, EngineError) as error:
            failed = EngineError(f"the weights cannot be put where workers fetch them: {error}")
        with self.lock:
            self._unpublished = failed
            self._offers[version] = offers
            self._seconds += time.perf_counter() - began
            self._drop_old()

    def _drop_old(self) -> None:
        used = {session.version for session in self._open.values()} | {self.version}
        for version in [each for each in self._offers if each not in used]:
            del self._offers[version]
            for shelf in {id(each.shelf): each.shelf for each in self.members}.values():
                shelf.drop(version)
            for member in self.members:
                if member.alive and version in member.versions:
                    member.versions.discard(version)
                    member.link.send(Drop(version))

    def not_taken_over(self) -> list[str]:
        """See Copying: what does not reach some member; [] while something is drawn."""
        with self.lock:
            if self._open:
                return []
        found = dict.fromkeys(name for copy in self.copies for name in copy.not_taken_over())
        return list(found)

    # drawing -------------------------------------------------------------------------------------------------------

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """See Engine.

        Raises:
            UsageError: members cannot draw a request; nothing was drawn.
            EngineError: no member is left.
        """
        for request in requests:
            self.check(request, sampling)
        return complete(self.session(sampling), requests)

    def session(self, sampling: Sampling) -> PoolSession:
        """See Engine: it draws with the weights of the last `sync`, also after a further one.

        Raises:
            EngineError: these could not be put where members fetch them.
        """
        with self.lock:
            version = self.version
            if self._unpublished is not None or version not in self._offers:
                self.publish()
            if self._unpublished is not None:
                raise self._unpublished
            session = PoolSession(self, next(self._numbers), sampling, version)
            self._open[session.id] = session
        return session

    def ticket(self) -> int:
        """A new one."""
        return next(self._tickets)

    def take_on(self, member: Member, ticket: int, session: PoolSession, number: int) -> None:
        """A member is to draw a request: it is told of the session and its weights, if it does not know of them."""
        if session.version not in member.versions:
            member.versions.add(session.version)
            offered = self._offers[session.version].get(id(member.shelf))
            member.link.send(Offer(session.version, offered))
        if session.id not in member.sessions:
            member.sessions.add(session.id)
            member.link.send(Open(session.id, session.sampling, session.version))
        if not member.tickets:
            member.heard = time.monotonic()
        member.tickets[ticket] = session, number
        member.cost += session.alive[number].max_new_tokens

    def leave(self, session: PoolSession) -> None:
        """A session is over."""
        with self.lock:
            if self._open.pop(session.id, None) is None:
                return
            for member in self.members:
                for ticket in [each for each, (whose, _) in member.tickets.items() if whose is session]:
                    self.release(member, ticket)
                if member.alive and session.id in member.sessions:
                    member.sessions.discard(session.id)
                    member.link.send(Close(session.id))
            self._drop_old()

    # the end -------------------------------------------------------------------------------------------------------

    def metrics(self) -> dict[str, float]:
        """What became of members so far, and what they did since this was asked last."""
        now = time.monotonic()
        with self.lock:
            out = {
                "engine/workers": float(sum(member.alive for member in self.members)),
                "engine/restarts": float(sum(max(0, member.joined - 1) for member in self.members)),
                "engine/redrawn": float(self.redrawn),
                "engine/transfer_seconds": self._seconds + max(self._loads.values(), default=0.0),
                "engine/transfer_bytes": self._bytes,
            }
            for member in self.members:
                if member.tickets:
                    member.busy += now - member.heard
                    member.heard = now
                if member.busy > 0:
                    out[f"engine/tokens_per_second/{member.name}"] = member.drawn / member.busy
                member.drawn, member.busy = 0, 0.0
            self._seconds = self._bytes = 0.0
            self._loads = {}
        return out

    def close(self) -> None:
        """Leave all members, and take away the weights."""
        with self.lock:
            self._closed = True
            self._open.clear()
        for member in self.members:
            threading.Thread(target=member.link.close, daemon=True).start()
        for member in self.members:
            member.link.close()
        for shelf in {id(each.shelf): each.shelf for each in self.members}.values():
            shelf.close()
        self.after()
