"""A drawer without a model, for sources that draw ahead of training."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cohort.rollouts.ahead import Ahead, Order
from cohort.rollouts.journal import Journal, Ready
from cohort.rollouts.sources import Drawn
from cohort.types import Context, Prompt, Request, Rollout, Segment, StepInfo
from cohort.types.declare import State

PROMPTS = {f"p{i}": Prompt(f"p{i}", f"p{i}", (i,), f"p{i}") for i in range(4)}


@dataclass
class Counting:
    """A source that counts the steps it has drawn, of which its state is the number."""

    drawn: int = 0

    def next(self, info: StepInfo, states: Mapping[str, State]) -> Drawn:
        raise AssertionError("the drawer below draws")

    def release(self, rollouts: Sequence[Rollout]) -> None:
        raise AssertionError("the drawer below draws")

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self.drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.drawn = state["drawn"]


@dataclass
class Drawing:
    """Draws a token of every prompt; `drawn` has (step, version, the weights' number) of all that it drew.

    Attributes:
        now: the number that is the trainer's weights.
        takes: step -> seconds.
        fails: step -> what drawing it raises.
    """

    takes: Callable[[int], float] = lambda step: 0.0
    fails: dict[int, BaseException] = field(default_factory=dict)
    now: float = 0.0
    source: Counting = field(default_factory=Counting)
    stopped: threading.Event = field(default_factory=threading.Event)
    drawn: list[tuple[int, int, float]] = field(default_factory=list)

    def weights(self) -> Sequence[Tensor]:
        return [torch.tensor(self.now)]

    def resting(self) -> AbstractContextManager[None]:
        raise AssertionError("nothing else draws here")

    def draw(self, order: Order) -> tuple[Drawn, dict[str, Any]]:
        time.sleep(self.takes(order.step))
        if order.step in self.fails:
            raise self.fails[order.step]
        self.source.drawn += 1
        version = order.info.version
        self.drawn.append((order.step, version, float(order.weights[0])))
        rollouts = [
            Rollout(
                Request(prompt, Context(prompt.tokens), order.step, 1), (Segment((7,), logp=(-1.0,), version=version),)
            )
            for prompt in PROMPTS.values()
        ]
        place = order.states["curriculum"]["place"] + len(rollouts)
        states = {"curriculum": {**order.states["curriculum"], "place": place}}
        return Drawn(rollouts, rollouts[1:], states, tokens=4), {"seen": order.states["curriculum"]["seen"]}

    def use(self, ready: Ready, version: int) -> Drawn:
        return ready.drawn


@dataclass
class Trainer:
    """Goes through steps with a source: a step makes `updates` versions of the weights, whose number is the step's.

    Attributes:
        used: of each step (place, seen) as its curriculum's state was.
    """

    source: Ahead
    drawer: Drawing
    updates: int = 1
    takes: Callable[[int], float] = lambda step: 0.0
    step: int = 0
    states: dict[str, State] = field(default_factory=lambda: {"curriculum": {"place": 0, "seen": 0}})
    results: list[Drawn] = field(default_factory=list)

    def one(self) -> Drawn:
        drawn = self.source.next(info(self.step, self.step * self.updates), self.states)
        time.sleep(self.takes(self.step + 1))
        self.step += 1
        self.drawer.now = float(self.step)
        self.source.release(drawn.chosen)
        # What is learnt in a step.
        self.states = {"curriculum": {**drawn.states["curriculum"], "seen": self.step}}
        self.results.append(drawn)
        return drawn


def info(step: int, version: int = 0) -> StepInfo:
    return StepInfo(step=step, steps=100, version=version)


def trainer_of(
    most: int, steps: int = 100, journal: Journal | None = None, updates: int = 1, **how: Any
) -> tuple[Trainer, Ahead, Drawing]:
    """A trainer, its source and the drawer."""
    trains = {"takes": how.pop("trains")} if "trains" in how else {}
    drawer = Drawing(**how)
    source = Ahead(drawer, most, info, steps, len(PROMPTS), PROMPTS, journal)
    return Trainer(source, drawer, updates, **trains), source, drawer
