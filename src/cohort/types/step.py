"""The run at a step: what axis functions may read in addition to the batch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepInfo:
    """The run at a step. An axis function or hook that names a keyword-only `info` is given it.

    Attributes:
        step: steps completed before this one.
        steps: of the whole run.
        seed: of the run.
        lr: learning rate of the step's updates, by the run's schedule; None if it is not known.
        reward_names, reward_weights: of the K reward components, in their order; () if they are not known.
        max_new_tokens: most tokens that a rollout may have; None if it is not known.
        version: of the policy's weights that the step begins with: updates made before it.
    """

    step: int = 0
    steps: int = 1
    seed: int = 0
    lr: float | None = None
    reward_names: tuple[str, ...] = ()
    reward_weights: tuple[float, ...] = ()
    max_new_tokens: int | None = None
    version: int = 0


def generation_budget(info: StepInfo) -> int:
    """The most tokens that a rollout of the run may have.

    Raises:
        KeyError: the limit is not known; give the method its `max_tokens` or `max_len`.
    """
    if info.max_new_tokens is None:
        raise KeyError("it is not known how long a rollout may be: set the method's max_tokens or max_len")
    return info.max_new_tokens
