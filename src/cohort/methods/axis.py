"""The axes of the training step, in its order: the one table that a new axis is entered into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, get_type_hints

from cohort.axes.advantage import zscore
from cohort.axes.aggregation import sequence_mean
from cohort.axes.budget import equal
from cohort.axes.curriculum import uniform
from cohort.axes.guidance import none as no_guidance
from cohort.axes.optimizer import adamw
from cohort.axes.ratio import token
from cohort.axes.sampling import independent
from cohort.axes.surrogate import ppo_clip
from cohort.methods.stage import Stage, use

One = Stage | None
Many = tuple[Stage, ...]
# Fields that a critic reads.
VALUES = frozenset({"values", "old_values"})


class Axis(NamedTuple):
    """A slot of a method.

    Attributes:
        question: that its functions answer.
        kind: "one" function, or "many" in their order.
        runs: while "rollouts" are drawn; on the whole "batch", without gradient; in the "loss", on a minibatch and with
            gradient; or once a "run".
        default: GRPO's function, of a method that leaves the axis alone; None for nothing.
        needs: fields of the batch that are there for whatever function fills it.
    """

    question: str
    kind: Literal["one", "many"]
    runs: Literal["rollouts", "batch", "loss", "run"]
    default: Stage | None = None
    needs: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Slots:
    """What stands at each axis of the training step, in its order: a new axis is one entry here."""

    curriculum: Annotated[One, Axis("which prompts next", "one", "rollouts", use(uniform))] = None
    budget: Annotated[One, Axis("how many rollouts each", "one", "rollouts", use(equal))] = None
    guidance: Annotated[One, Axis("what is put into the prompt", "one", "rollouts", use(no_guidance))] = None
    sampling: Annotated[One, Axis("how a rollout is drawn", "one", "rollouts", use(independent))] = None
    shaping: Annotated[Many, Axis("rewards -> rewards", "many", "batch")] = ()
    filter: Annotated[Many, Axis("what is kept", "many", "batch")] = ()
    advantage: Annotated[One, Axis("rewards -> advantages", "one", "batch", use(zscore))] = None
    credit: Annotated[Many, Axis("advantages -> per-token advantages", "many", "batch")] = ()
    correction: Annotated[Many, Axis("sampler's policy -> trainer's policy", "many", "loss")] = ()
    ratio: Annotated[One, Axis("importance ratio", "one", "loss", use(token))] = None
    surrogate: Annotated[One, Axis("ratio x advantage -> token losses", "one", "loss", use(ppo_clip))] = None
    objective: Annotated[One, Axis("a loss that is no clipped surrogate", "one", "loss")] = None
    critic: Annotated[One, Axis("what learns values, and how", "one", "loss", needs=VALUES)] = None
    regularizer: Annotated[Many, Axis("added terms", "many", "loss")] = ()
    aggregation: Annotated[One, Axis("tokens -> scalar", "one", "loss", use(sequence_mean))] = None
    optimizer: Annotated[One, Axis("the parameter update", "one", "run", use(adamw))] = None


AXES: dict[str, Axis] = {
    name: hint.__metadata__[0] for name, hint in get_type_hints(Slots, include_extras=True).items()
}
ONE = tuple(name for name, axis in AXES.items() if axis.kind == "one")
MANY = tuple(name for name, axis in AXES.items() if axis.kind == "many")
LOSS_AXES = tuple(name for name, axis in AXES.items() if axis.runs == "loss")
# Axes whose functions draw rollouts; what they provide stands in the rollouts themselves.
DRAWING_AXES = ("guidance", "sampling")
