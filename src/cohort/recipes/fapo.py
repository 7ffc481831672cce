"""FAPO: Flawed-Aware Policy Optimization for Efficient and Reliable Reasoning. arXiv:2510.22543, code yyDing1/FAPO.

Confidence: exact.

A right answer reached by guessing or by skipped steps is a flawed positive; a generative reward model finds it:

    r_i = 1 if right and sound;  1 - flaw_penalty if right and flawed;  -1 if wrong

With flaw_penalty 1 the advantage of a flawed positive is negative exactly when sound rollouts outnumber wrong ones in the
group: flaws are encouraged early in training and suppressed later, without a schedule (in general, when their ratio
exceeds 2 / flaw_penalty - 1).

`flawed` names a reward of the run that says it, 1 or 0 for each completion (only right ones are read): a function that
gives question, reference answer and numbered steps to the model and reads the first wrong step or -1 out of its last box
(`is_flawed`). `step_reward` is the reward for training such a model itself, with GRPO as well.

Defaults: flaw_penalty 1 (paper). Its run: clip 0.2/0.28, mean over tokens, overlong penalty (dapo), no KL.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.signals.components import component
from cohort.types import Batch, StepInfo
from cohort.types.declare import declare


def is_flawed(answer: str | None) -> bool:
    """The reward model's boxed answer names a wrong step; False if it is -1, missing, or no integer."""
    try:
        return answer is not None and int(answer) != -1
    except ValueError:
        return False


def step_reward(predicted: int | None, gold: int, steps: int) -> float:
    """Reward in [-1, 1] of a reward model's verdict, for its own training.

    -1 if the verdict is no step (0 .. steps - 1) and not -1, or finds a flaw where there is none, or none where there is
    one; 1 if both say sound; else 1 - |predicted - gold| / steps.

    Args:
        predicted: first wrong step, -1 for none; None if it cannot be read.
        gold: first wrong step in truth, -1 for none.
    """
    if predicted is None or not -1 <= predicted < steps or (predicted == -1) != (gold == -1):
        return -1.0
    return 1.0 if gold == -1 else 1.0 - abs(predicted - gold) / steps


def flaw_aware(correct: Tensor, flawed: Tensor, flaw_penalty: float) -> Tensor:
    """1, 1 - flaw_penalty or -1 by correct and flawed (0 or 1): [N]."""
    return torch.where(correct > 0, 1 - flaw_penalty * (flawed > 0).to(correct.dtype), -torch.ones_like(correct))


@declare(components=("flawed",))
def flaw_aware_reward(batch: Batch, *, flawed: str = "flawed", flaw_penalty: float = 1.0, info: StepInfo) -> Tensor:
    """r_i = 1 if right and sound, 1 - flaw_penalty if right and flawed, -1 if wrong: [N]; in place of the run's rewards.

    Source: arXiv:2510.22543.
    """
    return flaw_aware(batch["accuracy"], component(batch, flawed, info), flaw_penalty)


@recipe(
    title="FAPO: Flawed-Aware Policy Optimization for Efficient and Reliable Reasoning",
    paper="arXiv:2510.22543",
    idea="a right answer by a flawed way counts less than a sound one",
    confidence="exact",
)
def fapo(*, flaw_penalty: Annotated[float, "[0, inf)"] = 1.0, flawed: str = "flawed") -> Method:
    return Method(shaping=(use(flaw_aware_reward, flawed=flawed, flaw_penalty=flaw_penalty),))
