"""Calling reward functions: what they are given, and what becomes of what they do."""

from __future__ import annotations

import contextlib
import inspect
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from typing import Any

from cohort.errors import shown
from cohort.rewards.interface import AFTER, bound, interface
from cohort.rewards.loop import LOOP
from cohort.rewards.values import BadValueError, check

# Characters of an error, of a traceback's end, and of a logged value.
ERROR, TRACEBACK, LOGGED = 2000, 8000, 10_000

# Seconds that a function may take for a batch, for those that can fit into them; None where nothing limits it.
TIME: ContextVar[float | None] = ContextVar("time", default=None)

# {"values": ..., "extra": ..., "metrics": ..., "notes": ...}, with "failed": {place: why} where some rows have none because of
# a failure, or {"error": text, "traceback": text}.
Reply = dict[str, Any]


class RewardError(RuntimeError):
    """A reward function failed; the message names it, the row and what happened, with its traceback."""


class PartlyFailed(Exception):
    """A builtin reward could not score some completions, and says which: the others need not be scored again.

    Attributes:
        values: of all completions, None where there is none.
        why: place of a completion -> why there is none.
    """

    def __init__(self, values: list[float | None], why: Mapping[int, str]) -> None:
        super().__init__(next(iter(why.values()), ""))
        self.values, self.why = values, dict(why)


@dataclass
class TrainerState:
    """Where the run stands, as `trainer_state` of a reward function.

    Attributes:
        global_step: steps completed, so 0 in the first.
        max_steps: steps of the run; 0 where there is none, as with `cohort score`.
        epoch: passes over the prompts, by the prompts that a step begins with.
        num_train_epochs: of the run, rounded up.
        is_local_process_zero, is_world_process_zero: true, since rewards are computed once.
    """

    global_step: int = 0
    max_steps: int = 0
    epoch: float = 0.0
    num_train_epochs: int = 0
    is_local_process_zero: bool = True
    is_world_process_zero: bool = True

    def stand(self, step: int, steps: int, *, per_step: int, prompts: int) -> None:
        """Go to a step of a run.

        Args:
            step, steps: completed, and of the run.
            per_step, prompts: prompts of a step, and of the data.
        """
        self.global_step, self.max_steps = step, steps
        self.epoch = step * per_step / prompts if prompts else 0.0
        self.num_train_epochs = -(-steps * per_step // prompts) if prompts else 0

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        held = ", ".join(each.name for each in fields(self))
        raise AttributeError(f"trainer_state has {held} here, but no '{name}'")


@dataclass
class Logs:
    """What one call of a reward function logs.

    Attributes:
        extra: column -> a value a completion, by `log_extra(column, values)`.
        metrics: name -> the numbers of its calls, by `log_metric(name, value)`.
    """

    extra: dict[str, list[Any]] = field(default_factory=dict)
    metrics: dict[str, list[float]] = field(default_factory=dict)

    def log_extra(self, column: str, values: Sequence[Any]) -> None:
        """A column of the recorded rollouts."""
        self.extra.setdefault(str(column), []).extend(plain(value) for value in values)

    def log_metric(self, name: str, value: Any) -> None:
        """A number of the step; those of several calls are averaged."""
        self.metrics.setdefault(str(name), []).append(float(value))

    def reply(self, rows: int) -> Reply:
        """The part of a reply that holds them."""
        notes = [
            f"log_extra('{column}') was given {len(values)} values for {rows} completions: they are not recorded"
            for column, values in self.extra.items()
            if len(values) != rows
        ]
        extra = {column: values for column, values in self.extra.items() if len(values) == rows}
        return {"extra": extra, "metrics": self.metrics, "notes": notes}


def plain(value: Any) -> Any:
    """A value as a number, a text or None."""
    if hasattr(value, "item") and not isinstance(value, type):
        with contextlib.suppress(Exception):
            value = value.item()
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        return shown(value, LOGGED)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return value[:LOGGED] if isinstance(value, str) else shown(value, LOGGED)


def call(
    functions: Sequence[Callable[..., Any]],
    given: Callable[[], Mapping[str, Any]],
    rows: int,
    state: TrainerState,
    *,
    contained: bool = False,
) -> list[Reply]:
    """One reply for each function, all called on the same batch; those that are asynchronous wait side by side.

    Args:
        given: makes the arguments anew for each function, so that none sees what another does to them.
        contained: KeyboardInterrupt is a failure like any other, since nobody at a keyboard can have caused it.
    """
    found: list[Any] = []
    logs = [Logs() for _ in functions]
    for function, log in zip(functions, logs, strict=True):
        with _place_kept():
            try:
                extra = (state, log.log_extra, log.log_metric)
                args, named = bound(interface(function), {**given(), **dict(zip(AFTER, extra, strict=True))})
                found.append(function(*args, **named))
            except PartlyFailed as error:
                found.append(error)
            except BaseException as error:
                found.append(_failed(error, contained))
    waiting = [i for i, value in enumerate(found) if inspect.isawaitable(value)]
    if waiting:
        with _place_kept():
            came = LOOP.run([found[i] for i in waiting])
        for i, value in zip(waiting, came, strict=True):
            failed = isinstance(value, BaseException) and not isinstance(value, PartlyFailed)
            found[i] = _failed(value, contained) if failed else value
    return [_reply(value, log, rows, contained) for value, log in zip(found, logs, strict=True)]


@dataclass
class _Failure:
    reply: Reply


def _reply(value: Any, log: Logs, rows: int, contained: bool) -> Reply:
    if isinstance(value, _Failure):
        return value.reply
    if isinstance(value, PartlyFailed):
        return {"values": value.values, "failed": value.why, **log.reply(rows)}
    try:
        return {"values": check(value, rows), **log.reply(rows)}
    except BadValueError as error:
        return {"error": str(error)}
    except BaseException as error:  # a generator runs only here
        return _failed(error, contained).reply


def _failed(error: BaseException, contained: bool) -> _Failure:
    if isinstance(error, (KeyboardInterrupt, RewardError)) and not contained:
        raise error
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:
        text = type(error).__name__
    trace = "".join(traceback.format_exception(error))
    return _Failure({"error": text[:ERROR], "traceback": trace[-TRACEBACK:]})


@contextlib.contextmanager
def _place_kept() -> Any:
    """The same process in the same folder after a call as before it."""
    pid = os.getpid()
    try:
        folder = os.getcwd()
    except OSError:
        folder = None
    try:
        yield
    finally:
        if os.getpid() != pid:
            # A child that the function forked and that came back from it in its parent's place.
            os._exit(0)
        if folder is not None:
            with contextlib.suppress(OSError):
                os.chdir(folder)
