"""Several engines as one: what an agent says is drawn by the engine of its own policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from cohort.engine.base import Completion, Copying, Engine, Sampling, Session, complete
from cohort.types import Request


class AgentEngines:
    """See `cohort.engine.base.Engine`.

    Args:
        members: agent -> its engine; the empty name has that of every agent without one.
    """

    def __init__(self, members: Mapping[str, Engine]) -> None:
        self.members = members
        self.exact = all(engine.exact for engine in members.values())

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """See Engine."""
        return complete(self.session(sampling), requests)

    def session(self, sampling: Sampling) -> AgentSession:
        """See Engine."""
        return AgentSession({agent: engine.session(sampling) for agent, engine in self.members.items()})

    def sync(self) -> None:
        """See Engine."""
        for engine in self.members.values():
            engine.sync()

    def not_taken_over(self) -> list[str]:
        """See Copying; each behind the name of its agent."""
        members = {agent: engine for agent, engine in self.members.items() if isinstance(engine, Copying)}
        return [f"{agent}: {name}" for agent, engine in members.items() for name in engine.not_taken_over()]

    def close(self) -> None:
        """See Engine."""
        for engine in self.members.values():
            engine.close()


class AgentSession:
    """See `cohort.engine.base.Session`: the session in which most waits goes on, so that what is drawn together is much."""

    def __init__(self, sessions: Mapping[str, Session]) -> None:
        self.sessions = sessions
        # Of each session, its own numbers -> those given out here; and these -> session and its number.
        self.numbers: dict[str, dict[int, int]] = {agent: {} for agent in sessions}
        self.places: list[tuple[str, int]] = []

    @property
    def waiting(self) -> int:
        """See Session."""
        return sum(session.waiting for session in self.sessions.values())

    def submit(self, request: Request) -> int:
        """See Session."""
        agent = request.agent if request.agent in self.sessions else ""
        number, own = len(self.places), self.sessions[agent].submit(request)
        self.numbers[agent][own] = number
        self.places.append((agent, own))
        return number

    def forget(self, number: int) -> None:
        """See Session."""
        agent, own = self.places[number]
        self.sessions[agent].forget(own)

    def end(self) -> None:
        """See Session."""
        for session in self.sessions.values():
            session.end()

    def next(self) -> tuple[int, Completion]:
        """See Session."""
        found = self._next(None)
        assert found is not None
        return found

    def next_unless(self, stop: Callable[[], bool]) -> tuple[int, Completion] | None:
        """See Session."""
        return self._next(stop)

    def _next(self, stop: Callable[[], bool] | None) -> tuple[int, Completion] | None:
        agent = max(self.sessions, key=lambda each: self.sessions[each].waiting)
        session = self.sessions[agent]
        found = session.next() if stop is None else session.next_unless(stop)
        return None if found is None else (self.numbers[agent].pop(found[0]), found[1])

    def close(self) -> None:
        """See Session."""
        for session in self.sessions.values():
            session.close()
