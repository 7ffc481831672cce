"""Asking judges: each question once, within limits of calls, tokens and time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from cohort import cache
from cohort.errors import UsageError
from cohort.rewards.judges.ledger import Ledger
from cohort.rewards.judges.reply import Drawing, Failed, Question, Reply, Unreachable, key_of, messages_of
from cohort.rewards.judges.store import Store

if TYPE_CHECKING:
    from cohort.rewards.judges.local import Local
    from cohort.rewards.judges.server import Server

POLICY = "policy"
# Seconds between two looks at what another process asks, and for which a claim outlives the time of its question.
LOOK, MARGIN = 0.2, 10.0
# Questions in a row that a server fails before the others of a batch are given up.
DOWN = 3
NO_POLICY = "there is no policy here that could judge"


class AskPolicy(Protocol):
    """The run's own policy: a reply of at most `tokens` tokens to each question."""

    def __call__(self, questions: Sequence[list[dict[str, Any]]], tokens: int) -> list[Reply]: ...


@dataclass(frozen=True)
class JudgeSettings:
    """How judges are asked.

    Attributes:
        calls, tokens: most of the whole run; None sets no limit.
        concurrency: most questions at once to one server.
        timeout: seconds that a question may take, with all its tries.
        reply: most tokens of a reply.
        on_spent: "stop" ends the run when the budget is spent; "skip" gives no reward from then on.
        key: environment variable that holds the servers' key.
        cache: replies are kept on disk, and used again.
    """

    calls: int | None = None
    tokens: int | None = None
    concurrency: int = 16
    timeout: float = 120.0
    reply: int = 1024
    on_spent: Literal["stop", "skip"] = "stop"
    key: str = "COHORT_JUDGE_KEY"
    cache: bool = True


class BudgetSpent(Unreachable):
    """The budget is spent, and the run is to end."""


class Judges:
    """The judges of a run, by name: `policy`, the URL of a server, or a model folder or hub id.

    Args:
        without_policy: why there is no policy to ask; empty where there will be one.
        log: is told what a user should know.

    Attributes:
        policy: asks the run's policy; set once there is one.
        ledger: what was spent.
    """

    def __init__(
        self,
        settings: JudgeSettings | None = None,
        *,
        without_policy: str = NO_POLICY,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.settings = settings or JudgeSettings()
        self.without_policy, self.log = without_policy, log
        self.policy: AskPolicy | None = None
        self.ledger = Ledger(self.settings.calls, self.settings.tokens)
        self._store = Store(cache.folder() / "judges") if self.settings.cache else None
        self._noted: dict[str, list[float]] = {}
        self._models: dict[str, Server | Local] = {}
        self._making = threading.RLock()

    def note(self, name: str, value: float) -> None:
        """A number for the step's metrics, of judges that methods ask."""
        self._noted.setdefault(name, []).append(float(value))

    def take_metrics(self) -> dict[str, float]:
        """What was spent so far, and the means of what was noted since the last call."""
        noted, self._noted = self._noted, {}
        return self.ledger.metrics() | {name: sum(values) / len(values) for name, values in noted.items()}

    def check(self, model: str) -> None:
        """The judge is there, and can be asked.

        Raises:
            UsageError: it is not; says what to do.
        """
        if model == POLICY:
            if self.without_policy:
                raise UsageError(f"judge 'policy': {self.without_policy}: name a model folder, or the URL of a server")
            return
        self._model(model)

    def _model(self, name: str) -> Server | Local:
        with self._making:
            if name not in self._models:
                # The libraries of each are large, and most runs have no judge.
                if "://" in name:
                    from cohort.rewards.judges.server import Server

                    how = self.settings
                    server = Server(name, key=how.key, concurrency=how.concurrency, timeout=how.timeout)
                    _in_loop(server.check(self.log))
                    self._models[name] = server
                else:
                    from cohort.rewards.judges.local import Local

                    self._models[name] = Local(name)
            return self._models[name]

    def ask(
        self,
        model: str,
        questions: Sequence[Question],
        *,
        tokens: int | None = None,
        temperature: float = 0.0,
        samples: Sequence[int] = (),
    ) -> list[Reply]:
        """A reply to each question, in their order. What was asked before is not asked again.

        Args:
            tokens: most of a reply; by default those of the settings.
            temperature: of the reply; 0 takes the likeliest token each time. The policy always does.
            samples: for each question a number that tells apart several replies to one question.

        Raises:
            UsageError: there is no such judge.
            Unreachable: it refuses every question, or (`BudgetSpent`) the budget is spent and on_spent is "stop".
        """
        self.check(model)
        most = tokens or self.settings.reply
        drawings = [Drawing(most, temperature, n) for n in samples or [0] * len(questions)]
        asked = [(messages_of(q), drawing) for q, drawing in zip(questions, drawings, strict=True)]
        name = model if model == POLICY else self._model(model).identity
        keys = [key_of(name, messages, drawing) for messages, drawing in asked]
        each_once = dict(zip(keys, asked, strict=True))
        found: dict[str, Reply] = {}
        # The policy is another one after every step.
        store = None if model == POLICY else self._store
        if store is not None:
            found = {key: reply for key in each_once if (reply := store.get(key)) is not None}
        left = {key: each for key, each in each_once.items() if key not in found}
        try:
            if left:
                found |= self._asked(model, left, store)
        finally:
            self.ledger.write()
        if store is not None and store.problem:
            self.log(store.problem)
            self._store = None
        if self.settings.on_spent == "stop" and any(found[key].spent for key in keys):
            answered = sum(not found[key].spent for key in keys)
            raise BudgetSpent(
                f"{self.ledger.spent or 'the judges have no budget left'}: {answered} of {len(keys)} questions have a reply, "
                "which is kept. Raise the limit and go on with --resume, or have the run go on without the judge's reward "
                "with judge_on_spent = skip"
            )
        return [found[key] for key in keys]

    def _asked(
        self, model: str, left: dict[str, tuple[list[dict[str, Any]], Drawing]], store: Store | None
    ) -> dict[str, Reply]:
        if "://" in model:
            replies: list[Reply] = _in_loop(self._at_server(cast("Server", self._model(model)), left, store))
            return dict(zip(left, replies, strict=True))
        found: dict[str, Reply] = {}
        # All with one drawing together.
        for drawing in dict.fromkeys(drawing for _, drawing in left.values()):
            keys = [key for key, (_, own) in left.items() if own == drawing]
            messages = [left[key][0] for key in keys]
            if model == POLICY:
                found |= dict(zip(keys, self._of_policy(messages, drawing.tokens), strict=True))
                continue
            local = cast("Local", self._model(model))
            came = local.answer(messages, drawing, seconds=self.settings.timeout, paid=self.ledger.begin)
            for key, reply in zip(keys, came, strict=True):
                found[key] = reply
                self._book(reply)
                if store is not None and not (reply.spent or reply.error):
                    store.put(key, reply)
        return found

    def _of_policy(self, messages: list[list[dict[str, Any]]], tokens: int) -> list[Reply]:
        if self.policy is None:
            raise UsageError(f"judge 'policy': {self.without_policy or NO_POLICY}")
        allowed = [each for each in messages if self.ledger.begin()]
        came = self.policy(allowed, tokens) if allowed else []
        for reply in came:
            self._book(reply)
        return [*came, *[Reply(spent=True)] * (len(messages) - len(came))]

    def _book(self, reply: Reply) -> None:
        self.ledger.book(reply.read + reply.written)

    async def _at_server(
        self, server: Server, left: dict[str, tuple[list[dict[str, Any]], Drawing]], store: Store | None
    ) -> list[Reply]:
        server.failed_in_a_row = 0
        tasks = [asyncio.ensure_future(self._one(server, key, *each, store)) for key, each in left.items()]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            # Where one of them ended all, or nobody waits any more.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(
        self, server: Server, key: str, messages: list[dict[str, Any]], drawing: Drawing, store: Store | None
    ) -> Reply:
        async with server.slots:
            while store is not None and not store.claim(key, self.settings.timeout + MARGIN):
                await asyncio.sleep(LOOK)
                if (reply := store.get(key)) is not None:
                    return reply
            try:
                # It may have come between the first look and the claim.
                if store is not None and (reply := store.get(key)) is not None:
                    return reply
                return await self._paid(server, key, messages, drawing, store)
            finally:
                if store is not None:
                    store.let_go(key)

    async def _paid(
        self, server: Server, key: str, messages: list[dict[str, Any]], drawing: Drawing, store: Store | None
    ) -> Reply:
        if server.failed_in_a_row >= DOWN:
            return Reply(error=f"{server.place} was not asked: it failed {DOWN} questions in a row")
        if not self.ledger.begin():
            return Reply(spent=True)
        came = False
        try:
            reply = await server.answer(messages, drawing, paid=self.ledger.begin)
            came, server.failed_in_a_row = True, 0
        except Failed as error:
            came = error.paid
            server.failed_in_a_row += error.passing
            return Reply(error=str(error))
        finally:
            if not came:
                self.ledger.give_back()
        if not reply.read + reply.written:
            # A server that does not count: four characters are about a token.
            letters = sum(len(str(message["content"])) for message in messages)
            reply = replace(reply, read=letters // 4, written=len(reply.text) // 4)
        self._book(reply)
        if store is not None:
            store.put(key, reply)
        return reply


class _Loop:
    """An event loop in a thread of its own: connections belong to the loop that opened them."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="judges", daemon=True).start()


_LOOP: list[_Loop] = []
_STARTING = threading.Lock()


def _in_loop(work: Any) -> Any:
    """What a coroutine comes to. It is given up where whoever waits for it is interrupted."""
    with _STARTING:
        if not _LOOP:
            _LOOP.append(_Loop())
    future = asyncio.run_coroutine_threadsafe(work, _LOOP[0].loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        with suppress(CancelledError, Exception):
            future.result(1.0)
        raise
