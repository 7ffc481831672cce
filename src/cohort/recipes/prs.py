"""PRS: Progressive Reward Shaping for agents that call tools. arXiv:2512.07478.

Confidence: reconstructed: all numbers, the form of the gates, the exact length-aware BLEU. Known: the stages and their order, a
length-aware BLEU for short answers, a judge for long ones. The paper's other part is vspo.

With 0 or 1 for the final answer, runs that fail late teach nothing. Here a later stage pays only where the earlier ones are
passed, so that the policy meets them in this order by itself:

    R = 0                              a call of a tool cannot be read, or its name or arguments are wrong
    R = w1                             the calls are sound, but the format is not, or there is no answer
    R = w1 + w2 + (1 - w1 - w2) Q      both are sound;  Q in [0, 1] the quality of the answer

Where nobody is right but formats differ, the group still has a gradient. R is in place of the run's rewards. Q is the run's
reward `quality`, held within [0, 1]: `overlap`, the length-aware BLEU with the row's `answer` (or the best of several), for
answers of a few words; a judge's score for long ones, whose overlap fluent text raises. `format` names a reward that is above 0
where the format is kept; without it an answer is all that is asked of the format. `calls` names one that is above 0 where the
calls are sound; without it they are read from the rollout, and a run without tools passes this stage.

Defaults: w1 = w2 = 0.1 are the specification's. The paper's run: 5 rollouts, clip 0.2, KL 0.001 (`prs+grpo(kl_beta=0.001)`).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.signals.calls import answered, calls_valid
from cohort.signals.components import component
from cohort.types import Batch, StepInfo
from cohort.types.access import ModelAccess
from cohort.types.declare import declare, hooks, needs


def staged(parseable: Tensor, well_formed: Tensor, quality: Tensor, *, w1: float, w2: float) -> Tensor:
    """R [N], of whether the calls and the format are sound [N] bool and the quality of the answer [N]."""
    whole = w1 + w2 + (1 - w1 - w2) * quality.clamp(0, 1)
    return torch.where(parseable, torch.where(well_formed, whole, w1), 0.0).to(quality.dtype)


def read_calls(batch: Batch, access: ModelAccess) -> Batch:
    """on_scored hook: the batch with `calls_valid` and `answered` [N], 0 or 1."""
    found = [(calls_valid(rollout), answered(rollout)) for rollout in access.rollouts]
    valid, ended = torch.tensor(found, device=batch.device).to(batch.dtype).reshape(-1, 2).T
    return batch.with_rollouts(calls_valid=valid, answered=ended)


@needs("calls_valid", "answered")
@hooks(on_scored=read_calls)
@declare(components=("quality", "format", "calls"), provides=("calls_valid", "answered"))
def progressive_reward(
    batch: Batch,
    *,
    quality: str = "overlap",
    format: str | None = None,
    calls: str | None = None,
    w1: float = 0.1,
    w2: float = 0.1,
    info: StepInfo,
) -> Tensor:
    """R = 0, w1, or w1 + w2 + (1 - w1 - w2) Q by the stages passed: [N]; in place of the run's rewards.

    Source: arXiv:2512.07478.
    """
    parseable = (batch["calls_valid"] if calls is None else component(batch, calls, info)) > 0
    well_formed = batch["answered"] > 0
    if format is not None:
        well_formed = well_formed & (component(batch, format, info) > 0)
    return staged(parseable, well_formed, component(batch, quality, info), w1=w1, w2=w2)


@recipe(
    title="Enhancing Agentic RL with Progressive Reward Shaping and Value-based Sampling Policy Optimization",
    paper="arXiv:2512.07478",
    idea="sound calls, then the format, then the answer: a later stage pays only where the earlier ones are passed",
    confidence="reconstructed: all numbers, the form of the gates, the exact length-aware BLEU",
    rewards=("overlap",),
)
def prs(
    *,
    quality: str = "overlap",
    format: str | None = None,
    calls: str | None = None,
    w1: Annotated[float, "[0, 1]"] = 0.1,
    w2: Annotated[float, "[0, 1]"] = 0.1,
) -> Method:
    if w1 + w2 > 1:
        raise MethodError(f"'prs': w1 + w2 must not exceed 1, which is what a whole answer is worth, got {w1} + {w2}")
    return Method(shaping=(use(progressive_reward, quality=quality, format=format, calls=calls, w1=w1, w2=w2),))
