"""How minibatch, updates and learning rate go with the number of rollouts in a step (arXiv:2603.06009)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Rule = Literal["fixed_inner", "scale_minibatch", "scale_minibatch_sqrt_lr", "scale_minibatch_linear_lr"]


@dataclass(frozen=True)
class Plan:
    """Steps of a size.

    Attributes:
        samples: of a step; minibatch: of an update.
        minibatches: that the samples are cut into; updates: of a step, over its epochs.
        iterations: whole steps for which a budget of samples suffices; total_updates: in these.
    """

    samples: int
    minibatch: int
    minibatches: int
    updates: int
    lr: float
    iterations: int
    total_updates: int


def scaled(
    samples: int, *, base: int, minibatch: int, epochs: int, lr: float, budget: int, rule: Rule = "fixed_inner"
) -> Plan:
    """The plan for steps of another size: as the paper has it, the minibatch and all else stay, and updates grow.

    Args:
        base, minibatch, lr: samples of a step, minibatch and learning rate as they were.
        rule: the other ones are known to undo the gain, and serve to compare.

    Raises:
        ValueError: the samples cannot be cut into such minibatches.
    """
    times = samples / base
    if rule != "fixed_inner":
        minibatch = round(minibatch * times)
        lr *= {"scale_minibatch_sqrt_lr": math.sqrt(times), "scale_minibatch_linear_lr": times}.get(rule, 1.0)
    if samples % minibatch:
        raise ValueError(f"{samples} samples cannot be cut into minibatches of {minibatch}")
    minibatches, iterations = samples // minibatch, budget // samples
    updates = epochs * minibatches
    return Plan(samples, minibatch, minibatches, updates, lr, iterations, iterations * updates)


def advice(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """What to say where a run goes on with larger steps and with larger minibatches as well; None where it does not.

    Args:
        before, now: configurations, key -> value.
    """
    sizes = [each["prompts_per_step"] * each["group_size"] for each in (before, now)]
    minibatches = [size / each["updates"] for size, each in zip(sizes, (before, now), strict=True)]
    if sizes[1] <= sizes[0] or minibatches[1] <= minibatches[0]:
        return None
    fit = max(1, round(sizes[1] / minibatches[0]))
    return (
        f"a step has {sizes[1]} rollouts in place of {sizes[0]}, and an update {minibatches[1]:g} in place of "
        f"{minibatches[0]:g}: larger minibatches undo much of what larger steps are good for. With updates {fit} and the same "
        "learning rate the minibatch stays what it was (arXiv:2603.06009)"
    )
