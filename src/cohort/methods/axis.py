"""The axes of the training step, in its order: the one table that a new axis is entered into."""

from __future__ import annotations

from typing import Literal, NamedTuple

from cohort.axes import advantage, aggregation, budget, curriculum, guidance, optimizer, ratio, sampling, surrogate
from cohort.methods.stage import Stage, use


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


AXES: dict[str, Axis] = {
    "curriculum": Axis("which prompts next", "one", "rollouts", use(curriculum.uniform)),
    "budget": Axis("how many rollouts each", "one", "rollouts", use(budget.equal)),
    "guidance": Axis("what is put into the prompt", "one", "rollouts", use(guidance.none)),
    "sampling": Axis("how a rollout is drawn", "one", "rollouts", use(sampling.independent)),
    "shaping": Axis("rewards -> rewards", "many", "batch"),
    "filter": Axis("what is kept", "many", "batch"),
    "advantage": Axis("rewards -> advantages", "one", "batch", use(advantage.zscore)),
    "credit": Axis("advantages -> per-token advantages", "many", "batch"),
    "correction": Axis("sampler's policy -> trainer's policy", "many", "loss"),
    "ratio": Axis("importance ratio", "one", "loss", use(ratio.token)),
    "surrogate": Axis("ratio x advantage -> token losses", "one", "loss", use(surrogate.ppo_clip)),
    "objective": Axis("a loss that is no clipped surrogate", "one", "loss"),
    "critic": Axis("what learns values, and how", "one", "loss", needs=frozenset({"values", "old_values"})),
    "regularizer": Axis("added terms", "many", "loss"),
    "aggregation": Axis("tokens -> scalar", "one", "loss", use(aggregation.sequence_mean)),
    "optimizer": Axis("the parameter update", "one", "run", use(optimizer.adamw)),
}
ONE = tuple(name for name, axis in AXES.items() if axis.kind == "one")
MANY = tuple(name for name, axis in AXES.items() if axis.kind == "many")
LOSS_AXES = tuple(name for name, axis in AXES.items() if axis.runs == "loss")
# Axes whose functions draw rollouts; what they provide stands in the rollouts themselves.
DRAWING_AXES = ("guidance", "sampling")
