"""Rewards of completions, computed in a process of their own."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from cohort.errors import UsageError
from cohort.rewards.calling import Reply, RewardError, TrainerState
from cohort.rewards.child import Failed
from cohort.rewards.dealing import joined, shares
from cohort.rewards.interface import AFTER, BEFORE, COMPONENT, ENVIRONMENTS, JUDGES, LENT, Interface
from cohort.rewards.judges.judges import Judges
from cohort.rewards.known import OTHERS, Known
from cohort.rewards.lent import Lent
from cohort.rewards.printed import Printed
from cohort.rewards.process import Worker
from cohort.rewards.sending import pickled
from cohort.rewards.spec import RewardSpec
from cohort.rewards.worker import Functions

ON_ERROR = ("stop", "zero", "skip")
# Rows of one batch that may each run into the time limit before the others are given up.
LATE = 3
# Columns of the data that a function is not given: they are the prompt and what answers it.
OWN = ("prompt", "completion", *BEFORE)


@dataclass
class Scores:
    """Values of a batch of completions.

    Attributes:
        components: reward name -> one value a completion; None where the reward does not apply.
        failed: places of completions that a reward function could not score, which `on_error` says what to do with.
        messages: what went wrong, one message a failure.
        extra: column -> what functions logged of each completion with `log_extra`.
        metrics: name -> the numbers that functions logged with `log_metric`.
    """

    components: dict[str, list[float | None]]
    failed: set[int] = field(default_factory=set)
    messages: list[str] = field(default_factory=list)
    extra: dict[str, list[Any]] = field(default_factory=dict)
    metrics: dict[str, list[float]] = field(default_factory=dict)


class Scorer:
    """Calls reward functions, in a worker process with a timeout.

    Args:
        specs: the reward components.
        timeout: seconds that one function may take for one batch.
        on_error: "stop" raises RewardError; "zero" gives the row 0; "skip" gives it None and reports it as failed.
        process: "worker", or "here": in this process, without a timeout and without any protection from what they do.
            Builtin rewards that ask models are called in this process in both cases.
        judges: whom they ask; by default judges of their own, without a policy.
        once: names of functions of the user's whose values depend on row and completion alone: as of the builtin verifiers,
            what they said is kept, and each pair is scored once. None keeps nothing, of builtin verifiers either.
        workers: processes of reward functions. Each gets a share of a batch, with all completions of a prompt that stand
            together.

    Raises:
        UsageError: a reward function cannot be loaded, or cannot be sent to the worker; a judge is not there; or `once` names
            none of them, or one that asks for more than row and completion.
    """

    def __init__(
        self,
        specs: Sequence[RewardSpec],
        *,
        timeout: float = 60.0,
        on_error: str = "stop",
        process: Literal["worker", "here"] = "worker",
        judges: Judges | None = None,
        once: Sequence[str] | None = (),
        workers: int = 1,
    ) -> None:
        if on_error not in ON_ERROR:
            raise UsageError(f"on_reward_error is '{on_error}', but must be one of {', '.join(ON_ERROR)}")
        self.specs, self.timeout, self.on_error = list(specs), timeout, on_error
        self.judges = judges or Judges()
        self.printed = Printed()
        # Rollouts that are drawn ahead of training are scored in a thread of their own.
        self._calling = threading.Lock()
        self.interfaces: list[Interface] = []
        self._warned: set[str] = set()
        # Those of the worker, by their place among its own; the others are called in this process.
        apart = [i for i, spec in enumerate(self.specs) if process == "worker" and spec.place == "worker"]
        self._apart = {i: place for place, i in enumerate(apart)}
        here = [spec for i, spec in enumerate(self.specs) if i not in self._apart]
        self._functions = Functions({spec.name: spec.function for spec in here if spec.function is not None})
        found_here = iter([self._functions.load(spec.text, spec.name) for spec in here])
        self._here = {i: place for place, i in enumerate(i for i in range(len(self.specs)) if i not in self._apart)}
        own = [self.specs[i] for i in apart]
        self._workers = [Worker(own, self.printed, timeout=timeout) for _ in range(workers if apart else 0)]
        # The others start when they are first needed.
        found_apart = iter(self._workers[0].start() if self._workers else [])
        found = [next(found_apart if i in self._apart else found_here) for i in range(len(self.specs))]
        self.interfaces = [Interface(**{k: _tuple(v) for k, v in each.items()}) for each in found]
        try:
            for spec in self.specs:
                spec.get_ready(self.judges)
            self._check_once(once or ())
        except BaseException:
            self.close()
            raise
        kept = [i for i, spec in enumerate(self.specs) if once is not None and (spec.name in once or self._is_pure(i))]
        self._known = {i: Known() for i in kept}

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.end()

    def _is_pure(self, index: int) -> bool:
        """It is a builtin reward that reads texts alone. What counts tokens is faster than remembering them."""
        spec, found = self.specs[index], self.interfaces[index]
        builtin = spec.kind is not None and spec.place == "worker"
        return builtin and not any(found.names(name) for name in ("completion_ids", *OTHERS))

    def _check_once(self, once: Sequence[str]) -> None:
        known = {spec.name: found for spec, found in zip(self.specs, self.interfaces, strict=True)}
        for name in once:
            if name not in known:
                raise UsageError(f"reward_once names '{name}', which is no reward of this run ({', '.join(known)})")
            for other in OTHERS:
                if known[name].names(other):
                    raise UsageError(
                        f"reward_once names '{name}', which asks for {other}: what it gives depends on more than row and "
                        "completion, and cannot be kept. Leave it out there, or have the function do without"
                    )

    def check_arguments(self, columns: Sequence[str], *, environments: bool = False) -> None:
        """All arguments that the functions ask for are given.

        Args:
            columns: of the data.
            environments: something answers the policy.

        Raises:
            UsageError: some are not; names those that are.
        """
        given = [*BEFORE, *(name for name in columns if name not in OWN), *AFTER, *LENT]
        given += [ENVIRONMENTS] if environments else []
        for spec, found in zip(self.specs, self.interfaces, strict=True):
            missing = found.missing([*given, JUDGES, COMPONENT] if spec.place == "run" else given)
            # What a verifier lacks is said with the option that names it.
            if missing and not spec.verifies:
                raise UsageError(
                    f"reward '{spec.text or spec.name}' asks for {', '.join(map(repr, missing))}, which is not available: "
                    f"there are {', '.join(dict.fromkeys(given))}; add a column of that name to the data, or give the "
                    "parameter a default"
                )

    def grade(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None,
        columns: Mapping[str, Sequence[Any]],
        *,
        where: Sequence[str] | None = None,
        state: TrainerState | None = None,
        extra: Mapping[str, Sequence[Any]] | None = None,
    ) -> Scores:
        """Every component of every completion.

        Args:
            prompts, completions: texts, or lists of messages.
            completion_ids: token ids, where they are known.
            columns: further columns of the data set, a value a completion.
            where: what to call each completion's row in messages; by default its place, counted from 1.
            state: where the run stands.
            extra: further arguments, for functions that name them; a column of the same name takes precedence.

        Raises:
            RewardError: a function failed and on_error is "stop".
            UsageError: a column cannot be sent to the worker.
        """
        rows = len(completions)
        columns = {name: values for name, values in columns.items() if name not in OWN}
        given = {
            "prompts": list(prompts),
            "completions": list(completions),
            "completion_ids": completion_ids,
            **columns,
        }
        further = {name: values for name, values in (extra or {}).items() if name not in columns}
        where = where or [f"row {row}" for row in range(1, rows + 1)]
        batch = _Batch({**given, **further}, rows, where, state or TrainerState(), frozenset(further))
        replies = self._replies(batch)
        scores = Scores({})
        for index, spec in enumerate(self.specs):
            reply = replies[index]
            if "values" in reply:
                self._note(spec, reply, scores)
                scores.components[spec.name] = self._without_failed(spec, reply, batch, scores)
            else:
                scores.components[spec.name] = self._row_by_row(index, batch, reply, scores)
        return scores

    def _replies(self, batch: _Batch) -> dict[int, Reply]:
        """What each function gives for the batch: one after the other, then together those that wait."""
        every = range(len(self.specs))
        waits = [self.interfaces[i].waits and i not in self._known for i in every]
        replies = {i: self._reply(i, batch) for i in every if not waits[i]}
        for place in (self._here, self._apart):
            waiting = [i for i in every if waits[i] and i in place]
            if not waiting:
                continue
            came = self._call(waiting, batch)
            if len(waiting) > 1 and any(reply.get("ended") for reply in came):
                # One of them ended the process, or let the time run out; the others need not suffer for it.
                came = [self._call([i], batch)[0] for i in waiting]
            replies.update(zip(waiting, came, strict=True))
        return replies

    def _reply(self, index: int, batch: _Batch) -> Reply:
        """What a function gives for the batch; one that is pure is called only on what it has not seen before."""
        if index not in self._known:
            return self._call([index], batch)[0]
        names = self._taken([index], batch)
        if self.specs[index].kind is not None:
            names = [name for name in names if name != "completion_ids"]
        given = {name: batch.given[name] for name in names}
        return self._known[index].ask(given, batch.rows, lambda rows: self._call([index], batch.only(rows))[0])

    def _taken(self, rewards: Sequence[int], batch: _Batch) -> list[str]:
        """Names of the arguments that are passed on to some functions."""
        found = [self.interfaces[i] for i in rewards]
        return [k for k in batch.given if any(f.names(k) if k in batch.extra else f.takes(k) for f in found)]

    def _note(self, spec: RewardSpec, reply: Reply, scores: Scores) -> None:
        """Take over what a function logged, and warn once of what it is not meant to do."""
        scores.extra.update(reply["extra"])
        for name, values in reply["metrics"].items():
            scores.metrics.setdefault(name, []).extend(values)
        notes = list(reply["notes"])
        if reply.get("changed"):
            names = ", ".join(map(repr, reply["changed"]))
            notes.append(
                f"it changes {names}, but in a process of its own: nothing of that is seen here (which does no harm to a "
                "cache). To collect something, use log_extra or log_metric, or run rewards here with reward_process = here"
            )
        for note in notes:
            message = f"reward '{spec.name}': {note}"
            if message not in self._warned:
                self._warned.add(message)
                scores.messages.append(message)

    def _without_failed(self, spec: RewardSpec, reply: Reply, batch: _Batch, scores: Scores) -> list[float | None]:
        """The values of a reply, of which some may have failed."""
        values: list[float | None] = reply["values"]
        if failed := reply.get("failed", {}):
            row, why = next(iter(failed.items()))
            more = f" (and on {len(failed) - 1} more of {batch.rows})" if len(failed) > 1 else ""
            message = f"reward '{spec.name}' failed on {batch.where[row]}{more}: {why}"
            if self.on_error == "stop":
                raise RewardError(message)
            scores.messages.append(message)
            scores.failed |= failed.keys()
            values = [(0.0 if self.on_error == "zero" else None) if i in failed else v for i, v in enumerate(values)]
        return values

    def _row_by_row(self, index: int, batch: _Batch, failure: Reply, scores: Scores) -> list[float | None]:
        """Call a failed function on each row by itself, to find the rows it fails on and to keep the others."""
        spec = self.specs[index]
        values: list[float | None] = []
        logged: list[dict[str, Any]] = []
        culprits = late = 0
        for row in range(batch.rows):
            alone = batch.only([row])
            reply: Reply = {"error": f"not tried: {LATE} rows took too long"}
            if late < LATE:
                (reply,) = self._call([index], alone)
            logged.append({column: each[0] for column, each in reply.get("extra", {}).items()})
            if "values" in reply:
                values += reply["values"]
                self._note(spec, {**reply, "extra": {}}, scores)
                continue
            culprits += 1
            late += bool(reply.get("late"))
            where = f"prompt {_short(alone.given['prompts'][0])}, completion {_short(alone.given['completions'][0])}"
            message = f"reward '{spec.name}' failed on {batch.where[row]} ({where}): {reply['error']}"
            trace = reply.get("traceback", "")
            frames = "".join(line for line in trace.splitlines() if line.startswith("  File "))
            if not frames or frames not in self._warned:  # that of the next row says the same
                self._warned.add(frames)
                message += f"\n{trace}"
            if self.on_error == "stop":
                raise RewardError(message.rstrip())
            scores.messages.append(message.rstrip())
            scores.failed.add(row)
            values.append(0.0 if self.on_error == "zero" else None)
        for column in dict.fromkeys(column for each in logged for column in each):
            scores.extra[column] = [each.get(column) for each in logged]
        if not culprits:
            message = f"reward '{spec.name}' failed on a batch of {batch.rows}, though on no row by itself: {failure['error']}"
            if self.on_error == "stop":
                raise RewardError(f"{message}\n{failure.get('traceback', '')}".rstrip())
            scores.messages.append(message)
        return values

    def _call(self, rewards: list[int], batch: _Batch) -> list[Reply]:
        """A reply for each of some functions of one process; of one that gave none, what happened, and if it `ended`."""
        taken = self._taken(rewards, batch)
        if rewards[0] in self._here:
            # Standard output is for results, here as in a worker.
            with self._calling, contextlib.redirect_stdout(sys.stderr):
                places = [self._here[i] for i in rewards]
                first = self.specs[rewards[0]]
                # Those that wait are called together, and ask nobody of these.
                asks = first.place == "run" and len(rewards) == 1
                own = {JUDGES: self.judges, COMPONENT: first.name} if asks else {}
                lent = {name: value for name, value in own.items() if self.interfaces[rewards[0]].names(name)}
                given = lambda: {**batch.copies(taken), **lent}  # noqa: E731
                return self._functions.call(places, given, batch.rows, replace(batch.state))
        places = [self._apart[i] for i in rewards]
        dealt = shares(batch.given["prompts"], len(self._workers)) or [[]]
        parts = [batch.only(rows) for rows in dealt]
        with self._calling:
            if len(parts) == 1:
                return self._of_worker(self._workers[0], places, parts[0], taken)
            with ThreadPoolExecutor(len(parts)) as pool:
                each = [
                    pool.submit(self._of_worker, worker, places, part, taken)
                    for worker, part in zip(self._workers, parts, strict=False)
                ]
                found = [future.result() for future in each]
        return [joined(replies, [len(rows) for rows in dealt]) for replies in zip(*found, strict=True)]

    def _of_worker(self, worker: Worker, places: list[int], batch: _Batch, taken: Sequence[str]) -> list[Reply]:
        """What a process gives for a batch, or part of one."""
        columns = {name: batch.sent(name) for name in taken}
        try:
            return worker.call(places, columns, batch.rows, batch.state, self.timeout)
        except Failed as error:
            failure = {"error": str(error), "traceback": error.said, "late": error.late, "ended": True}
            return [failure] * len(places)


@dataclass
class _Batch:
    """Arguments of a call.

    Attributes:
        given: name -> a value a completion; None where nothing is known of it.
        where: what to call each completion's row.
        extra: names of `given` that go to functions that name them, and not to those that take everything.
    """

    given: dict[str, Any]
    rows: int
    where: Sequence[str]
    state: TrainerState
    extra: frozenset[str]
    _sent: dict[str, bytes] = field(default_factory=dict)

    def only(self, rows: Sequence[int]) -> _Batch:
        """Some rows, in ascending order."""
        if len(rows) == self.rows:
            return self
        given = {k: None if values is None else [values[row] for row in rows] for k, values in self.given.items()}
        return _Batch(given, len(rows), [self.where[row] for row in rows], self.state, self.extra)

    def sent(self, name: str) -> bytes:
        """A column for the worker.

        Raises:
            UsageError: it cannot be sent; says which row.
        """
        if name not in self._sent:
            try:
                self._sent[name] = pickled(self.given[name])
            except Exception as error:
                raise UsageError(self._refusal(name, error)) from error
        return self._sent[name]

    def _refusal(self, name: str, error: Exception) -> str:
        at, kind = "", "something"
        for row, value in enumerate(self.given[name]):
            try:
                pickled(value)
            except Exception:
                at, kind = f", {self.where[row]}", type(value).__name__
                break
        return (
            f"the column '{name}'{at} holds {kind}, which cannot be sent to the process of the reward functions ({error}): "
            "leave the column out, store in it what can be, or run rewards in this process with reward_process = here"
        )

    def copies(self, names: Sequence[str]) -> dict[str, Any]:
        """Columns for a function in this process, which may change its lists."""

        def copied(values: Any) -> Any:
            return None if values is None else [each.open() if isinstance(each, Lent) else each for each in values]

        return {name: copied(self.given[name]) for name in names}


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _short(value: Any, most: int = 60) -> str:
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        value = value[-1].get("content")
    text = "" if value is None else str(value)
    return repr(text if len(text) <= most else text[: most - 3] + "...")
