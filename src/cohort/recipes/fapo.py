"""FAPO: Flawed-Aware Policy Optimization for Efficient and Reliable Reasoning. arXiv:2510.22543, code yyDing1/FAPO.

Confidence: exact.

A right answer reached by guessing or by skipped steps is a flawed positive; a generative reward model finds it:

    r_i = 1 if right and sound;  1 - flaw_penalty if right and flawed;  -1 if wrong

With flaw_penalty 1 the advantage of a flawed positive is negative exactly when sound rollouts outnumber wrong ones in the
group: flaws are encouraged early in training and suppressed later, without a schedule (in general, when their ratio
exceeds 2 / flaw_penalty - 1).

`flawed` names a reward of the run that says it, 1 or 0 for each completion (only right ones are read): a judge that is given
question, reference answer and numbered steps, and answers with the first wrong step or -1 in a box. It is itself trained with
GRPO, on solutions whose first wrong step is known (as in ProcessBench), and then asked in the same words:

    cohort train dapo --model BASE --data Qwen/ProcessBench?split=math --reward first-error --out runs/judge
    cohort train fapo+dapo --reward math --reward 0*judge:flawed@runs/judge/final ...

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
