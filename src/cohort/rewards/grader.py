"""Rewards of rollouts: what reward functions say of their texts."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from cohort.data.rows import columns_of
from cohort.rewards.calling import TrainerState
from cohort.rewards.composition import Composition
from cohort.rewards.interface import ENVIRONMENTS as LENT_ENVIRONMENTS
from cohort.rewards.scorer import Scorer
from cohort.types import Message, Rollout

# The component that is what a rollout's environment gave, in all its turns.
ENVIRONMENT = "environment"
# Columns and metrics of the values that gates and clips were given, and of the share of closed gates.
RAW, CLOSED = "raw/", "closed/"


@dataclass(frozen=True)
class Grader:
    """Rewards of rollouts.

    Attributes:
        scorer: runs the reward functions.
        accuracy: name of the component that says what is correct.
        verdict: what the share of rollouts that it calls correct is called.
        correct_at: value of that component from which a rollout counts as correct.
        max_new_tokens: generation budget, for rewards that depend on it.
        metrics: name -> the numbers that reward functions logged and nobody has taken yet.
        state: where the run stands, for reward functions that ask and weights that change.
        composition: gates, ranges and schedules of the components.
    """

    scorer: Scorer
    accuracy: str
    correct_at: float
    max_new_tokens: int
    verdict: str = "accuracy"
    failures: list[str] = field(default_factory=list)
    metrics: dict[str, list[float]] = field(default_factory=dict)
    state: TrainerState = field(default_factory=TrainerState)
    seconds: dict[str, float] = field(default_factory=lambda: {"reward": 0.0})
    composition: Composition = field(default_factory=Composition)

    def weight(self, name: str, step: int | None) -> float:
        """Weight of a component in the sum; one that no reward function gives is an environment's.

        Args:
            step: steps completed; None is the end of what the weights go through.
        """
        known = {spec.name: spec.weight for spec in self.scorer.specs}
        return self.composition.weight(name, known[name] if name in known else own_weight(name), step)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.scorer.specs)

    @property
    def lends(self) -> bool:
        """True if a reward function asks for the environments of the completions."""
        return any(each.names(LENT_ENVIRONMENTS) for each in self.scorer.interfaces)

    def grade(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """Rollouts with their components, reward and accuracy; `Rollout` says which have none.

        What their environments gave is added to what the reward functions say.
        """
        ended = [rollout for rollout in rollouts if rollout.status != "failed"]
        if len(ended) == len(rollouts):
            return self._grade(ended)
        graded = iter(self._grade(ended))
        return [next(graded) if rollout.status != "failed" else self._failed(rollout) for rollout in rollouts]

    def _failed(self, rollout: Rollout) -> Rollout:
        """A rollout whose environment failed."""
        if not rollout.failed and rollout.error:
            self.failures.append(f"{rollout.prompt.where or 'a rollout'}: {rollout.error}")
        components = {**dict.fromkeys(self.names), **rollout.components}
        return rollout.replace(components=components, reward=math.nan, accuracy=math.nan, failed=True)

    def _grade(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        if not rollouts:
            return []
        begin = time.perf_counter()
        scores = self.scorer.grade(
            [r.prompt.source for r in rollouts],
            [r.text if isinstance(r.prompt.source, str) and not r.end else _said(r) for r in rollouts],
            [r.tokens for r in rollouts],
            columns_of([r.prompt.row for r in rollouts]),
            where=[r.prompt.where or f"row {i}" for i, r in enumerate(rollouts, 1)],
            state=self.state,
            extra={
                "max_new_tokens": [self.max_new_tokens] * len(rollouts),
                **({LENT_ENVIRONMENTS: [r.environment for r in rollouts]} if self.lends else {}),
            },
        )
        self.seconds["reward"] += time.perf_counter() - begin
        self.failures.extend(scores.messages)
        for name, values in scores.metrics.items():
            self.metrics.setdefault(name, []).extend(values)
        step = self.state.global_step if self.state.max_steps else None
        out = []
        for i, rollout in enumerate(rollouts):
            raw = {name: values[i] for name, values in scores.components.items()}
            # Of an environment's component that was graded before, what the environment gave.
            own = {k: rollout.logged.get(RAW + k, v) for k, v in rollout.components.items() if k not in raw}
            failed = self.scorer.on_error == "skip" and i in scores.failed
            raw.update(own)
            components, closed = self.composition.counted(raw)
            weights = [self.weight(name, step) for name in components]
            reward = math.nan if failed else weighted_sum(weights, components.values())
            # What is correct does not depend on what counts. Without reward functions the environment's reward says it.
            right = None if failed else raw[self.accuracy] if self.accuracy else reward
            accuracy = math.nan if right is None or math.isnan(right) else float(right >= self.correct_at)
            logged = {column: values[i] for column, values in scores.extra.items()}
            logged |= self._before(raw, closed)
            scored = {"components": components, "reward": reward, "accuracy": accuracy, "failed": failed}
            out.append(rollout.replace(**scored, logged=logged, environment=None))
        return out

    def _before(self, raw: Mapping[str, float | None], closed: Set[str]) -> dict[str, float | None]:
        """What stood there before gates and clips, as columns; their means and the share of closed gates as metrics."""
        for name in self.composition.changed:
            if (value := raw.get(name)) is not None:
                self.metrics.setdefault(RAW + name, []).append(value)
        for name in self.composition.gated:
            self.metrics.setdefault(CLOSED + name, []).append(float(name in closed))
        return {RAW + name: raw[name] for name in self.composition.changed if name in raw}

    def take_metrics(self) -> dict[str, float]:
        """Means of what reward functions logged since the last call."""
        taken = {name: sum(values) / len(values) for name, values in self.metrics.items() if values}
        self.metrics.clear()
        return taken


def weighted_sum(weights: Iterable[float], values: Iterable[float | None]) -> float:
    """The reward of components with these weights, without those that do not apply (None); NaN if none applies.

    One of weight 0 is no part of it: it stands there for a method that reads it by name.
    """
    parts = list(zip(weights, values, strict=True))
    counted = [part for part in parts if part[0]] or parts
    known = [weight * value for weight, value in counted if value is not None]
    return sum(known) if known else math.nan


def own_weight(name: str) -> float:
    """Weight of a component that an environment gave: 1 for its reward, 0 for parts of that reward."""
    return float(name == ENVIRONMENT)


def _said(rollout: Rollout) -> list[Message]:
    """The completion of a conversation: what was said after the prompt, by the policy and to it."""
    if len(rollout.turns) > 1 or (rollout.turns and rollout.turns[0].text is not None):
        return [message for turn in rollout.turns for message in turn.messages]
    return [{"role": "assistant", "content": rollout.text}]
