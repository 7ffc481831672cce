"""Sampling ahead of training, in a thread of its own.

The rollouts of step t (1, 2, ...) are drawn with the weights after step max(0, t - 1 - k): while a step is trained on, those
of the next k are drawn or wait. What is drawn with which weights does not depend on what takes how long, so a run can be
repeated, and resumed to the last bit. No token is older than k steps when it is used, and none is thrown away: the sampler
waits where it would run further ahead.

What curriculum, budget and filters know of training is as old as the weights: a state of theirs has seen the rollouts up to
step t - 1 - k. What they have handed out themselves, such as the place in an epoch, is always up to date.
"""

from __future__ import annotations

import contextvars
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from torch import Tensor

from cohort.engine.detached import GivenUp
from cohort.rollouts.journal import Journal, Ready, packed, unpacked
from cohort.rollouts.sources import Drawn, RolloutSource
from cohort.types import Prompt, Rollout, StepInfo
from cohort.types.declare import State

# Seconds after which whoever waits looks whether the other side still lives, and that the thread has to end.
LOOK, GRACE = 1.0, 5.0
# Steps of which it is remembered which weights began them.
REMEMBERED = 1000


@dataclass(frozen=True)
class Order:
    """What a step's rollouts are drawn with.

    Attributes:
        info: of the step, with the version of the weights.
        states: the method's, as these weights met them.
        weights: those that are trained (see `Drawer.weights`).
    """

    info: StepInfo
    states: Mapping[str, State]
    weights: Sequence[Tensor]

    @property
    def step(self) -> int:
        """Whose rollouts are drawn: 1, 2, ..."""
        return self.info.step + 1


class Drawer(Protocol):
    """Draws the rollouts of a step in another thread, with an engine whose weights are its own.

    Attributes:
        source: what it draws from; used in the thread alone.
    """

    source: RolloutSource

    @property
    def stopped(self) -> threading.Event:
        """Set when what is being drawn is to be given up."""
        ...

    def weights(self) -> Sequence[Tensor]:
        """The trainer's weights as they are now, as plain values that stay as they are."""
        ...

    def resting(self) -> AbstractContextManager[None]:
        """Nothing is drawn ahead inside: the trainer's thread draws, with its weights of now."""
        ...

    def draw(self, order: Order) -> tuple[Drawn, dict[str, Any]]:
        """The rollouts of a step, in the thread; and plain values for `use`."""
        ...

    def use(self, ready: Ready, version: int) -> Drawn:
        """The rollouts as the step takes them, in the trainer's thread: with what was reported while they were drawn.

        Args:
            version: of the trainer's weights.
        """
        ...


@dataclass
class Ahead:
    """See the module.

    Attributes:
        most: k, the steps that sampling may be ahead.
        info: steps completed -> `StepInfo` of the next step, without a side effect.
        steps: of the run; nothing is drawn for later ones.
        groups: of a step, for the metrics.
        prompts: prompt id -> prompt of the data set.
        journal: where finished rollouts are written before they are used; None keeps none.
        waited: seconds that the trainer has waited for rollouts so far.
    """

    drawer: Drawer
    most: int
    info: Callable[[int], StepInfo]
    steps: int
    groups: int
    prompts: Mapping[str, Prompt]
    journal: Journal | None = None
    waited: float = 0.0
    _ready: dict[int, Ready] = field(default_factory=dict)
    _orders: deque[Order] = field(default_factory=deque)
    # The last step that was given out, and the last one of which a checkpoint holds what was drawn.
    _used: int | None = None
    _kept: int = 0
    # The state of the source behind the last step that was drawn.
    _source: Mapping[str, Any] = field(default_factory=dict)
    # What drawing has changed in the method's states so far; version of weights -> steps completed when they began a step.
    _handed: dict[str, State] = field(default_factory=dict)
    _began: dict[int, int] = field(default_factory=dict)
    _error: BaseException | None = None
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        self._changed = threading.Condition()

    # the trainer's side --------------------------------------------------------------------------------------------

    def next(self, info: StepInfo, states: Mapping[str, State]) -> Drawn:
        """The rollouts of the step, once they are drawn; see `RolloutSource.next`.

        Raises:
            BaseException: whatever ended the thread that draws, at the step whose rollouts it leaves out.
        """
        step, began = info.step + 1, time.perf_counter()
        with self._changed:
            groups = [
                len({rollout.prompt.id for rollout in ready.drawn.rollouts}) for ready in self._from(step).values()
            ]
        self._began[info.version] = info.step
        if len(self._began) > REMEMBERED:
            del self._began[min(self._began)]
        self._order(info, states)
        metrics = {"queue/depth": float(sum(groups)), "queue/in_flight": float(len(self._orders) * self.groups)}
        ready = self._wait(step)
        self._used = step
        waited = time.perf_counter() - began
        self.waited += waited
        drawn = self.drawer.use(ready, info.version)
        metrics |= {"time/wait_rollouts": waited, **self._ages(drawn.rollouts, info.step)}
        return replace(drawn, states=laid_over(states, ready.handed), metrics={**drawn.metrics, **metrics})

    def newest(self) -> Order | None:
        """What has the newest weights of all that is still to be drawn, or is being drawn."""
        with self._changed:
            return self._orders[-1] if self._orders else None

    def _from(self, step: int) -> dict[int, Ready]:
        return {at: ready for at, ready in self._ready.items() if at >= step}

    def _order(self, info: StepInfo, states: Mapping[str, State]) -> None:
        """Have everything drawn that the weights as they are now are to draw."""
        with self._changed:
            last = max((info.step, *self._ready, *(order.step for order in self._orders)))
        asked = range(last + 1, min(info.step + 1 + self.most, self.steps) + 1)
        if asked:
            weights = self.drawer.weights()
            orders = [Order(replace(self.info(step - 1), version=info.version), states, weights) for step in asked]
            with self._changed:
                self._orders.extend(orders)
                self._changed.notify_all()
        if self._thread is None and self._orders:
            # With what holds in this thread, such as the limit of judges.
            work = contextvars.copy_context().run
            self._thread = threading.Thread(target=work, args=(self._work,), name="rollouts", daemon=True)
            self._thread.start()

    def _wait(self, step: int) -> Ready:
        with self._changed:
            while step not in self._ready:
                if self._error is not None:
                    raise self._error
                if self._thread is None or not self._thread.is_alive():
                    raise RuntimeError(f"the thread that draws rollouts has ended without those of step {step}")
                self._changed.wait(LOOK)
            return self._ready[step]

    def _ages(self, rollouts: Sequence[Rollout], step: int) -> dict[str, float]:
        """Metrics: how many steps the weights have moved on since the policy's tokens were drawn."""
        counts: dict[int, int] = dict.fromkeys(range(self.most + 1), 0)
        versions = sorted(self._began)
        for rollout in rollouts:
            for segment in rollout.segments:
                if segment.writer == "policy" and len(segment):
                    at = bisect_right(versions, segment.version)
                    age = step - (self._began[versions[at - 1]] if at else 0)
                    counts[age] = counts.get(age, 0) + len(segment)
        whole = sum(counts.values())
        if not whole:
            return {}
        return {
            "rollouts/age_mean": sum(age * count for age, count in counts.items()) / whole,
            "rollouts/age_max": float(max(age for age, count in counts.items() if count)),
            **{f"rollouts/age/{age}": count / whole for age, count in sorted(counts.items())},
        }

    def release(self, rollouts: Sequence[Rollout]) -> None:
        """Does nothing: the next step says what is drawn with the new weights."""

    def close(self) -> None:
        """Give up what is being drawn, and end the thread. It has a moment for that; what it waits for may have to end first,
        so this may be called again."""
        self.drawer.stopped.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(GRACE)
        if self.journal is not None and self._used is not None and self._used >= self.steps:
            self.journal.clear()

    # the thread's side ---------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while (asked := self._next_order()) is not None:
                order, waited = asked
                ready = self._draw(order, waited)
                if self.journal is not None:
                    self.journal.append(order.step, packed(ready))
                with self._changed:
                    self._add(order.step, ready)
                    self._orders.popleft()
                    self._changed.notify_all()
        except GivenUp:
            pass
        except BaseException as error:  # whatever it is, it ends the run, in the trainer's thread
            self._error = error
        finally:
            with self._changed:
                self._changed.notify_all()

    def _next_order(self) -> tuple[Order, float] | None:
        """What is to be drawn next, and the seconds that were waited for it; None when all is over."""
        began = time.perf_counter()
        with self._changed:
            while not self._orders and not self.drawer.stopped.is_set():
                self._changed.wait(LOOK)
            if self.drawer.stopped.is_set():
                return None
            return self._orders[0], time.perf_counter() - began

    def _draw(self, order: Order, waited: float) -> Ready:
        states = laid_over(order.states, self._handed)
        drawn, aside = self.drawer.draw(replace(order, states=states))
        source = self.drawer.source.state_dict()
        metrics = {**drawn.metrics, "time/wait_trainer": waited}
        handed = handed_out(states, drawn.states)
        # A batch that a filter made of them is of other weights than the step's.
        return Ready(replace(drawn, states={}, scored_batch=None, metrics=metrics), handed, source, aside)

    def _add(self, step: int, ready: Ready) -> None:
        self._ready[step], self._source = ready, ready.source
        for key, state in ready.handed.items():
            self._handed[key] = {**self._handed.get(key, {}), **state}

    # checkpoints ---------------------------------------------------------------------------------------------------

    def snapshot(self) -> int | None:
        """What `restore` takes back: the last step that was given out. What came before it is forgotten."""
        if self._used is not None:
            with self._changed:
                self._ready = self._from(self._used + 1)
        return self._used

    def restore(self, held: int | None) -> None:
        """Give out again what was given out since a snapshot."""
        self._used = held

    def state_dict(self) -> dict[str, Any]:
        """The rollouts that wait; what is still to be drawn, with its weights; and where the source was after the last one.

        The journal lets go of what the checkpoint before this one holds.
        """
        with self._changed:
            ready, orders = self._from(0 if self._used is None else self._used + 1), list(self._orders)
            source, handed = dict(self._source), dict(self._handed)
        if self.journal is not None:
            self.journal.drop(self._kept)
            self._kept = max(ready, default=self._used or 0)
        return {
            "ready": [(step, packed(each)) for step, each in sorted(ready.items())],
            "orders": [
                {"info": vars(order.info), "states": dict(order.states), "weights": list(order.weights)}
                for order in orders
            ],
            "used": self._used or 0,
            "source": source,
            "handed": handed,
            "began": dict(self._began),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what waits, and what the journal holds of later steps. Without a state nothing of before is used."""
        if not state:
            if self.journal is not None:
                self.journal.clear()
            return
        self._source, self._handed, self._began = dict(state["source"]), dict(state["handed"]), dict(state["began"])
        self._used = state["used"]
        self._kept = last = max((step for step, _ in state["ready"]), default=self._used)
        found = {} if self.journal is None else self.journal.read()
        while last + 1 in found:
            last += 1
        drawn = {**dict(state["ready"]), **{step: found[step] for step in range(self._kept + 1, last + 1)}}
        for step, each in drawn.items():
            self._add(step, unpacked(each, self.prompts))
        orders = [Order(StepInfo(**each["info"]), each["states"], each["weights"]) for each in state["orders"]]
        self._orders.extend(order for order in orders if order.step > last)
        self.drawer.source.load_state_dict(self._source)


def handed_out(before: Mapping[str, State], after: Mapping[str, State]) -> dict[str, State]:
    """Fields of states that are others after drawing than before: key of the state -> field -> value."""
    found = {
        key: {name: value for name, value in state.items() if not _same(before.get(key, {}), name, value)}
        for key, state in after.items()
    }
    return {key: fields for key, fields in found.items() if fields}


def _same(state: State, name: str, value: Any) -> bool:
    if name not in state:
        return False
    held = state[name]
    return held is value or (isinstance(value, (bool, int, float, str)) and type(held) is type(value) and held == value)


def laid_over(states: Mapping[str, State], handed: Mapping[str, State]) -> dict[str, State]:
    """States with the fields of others in place of their own."""
    return {key: {**state, **handed.get(key, {})} for key, state in states.items()}
