"""GRIT: Teaching MLLMs to Think with Images (GRPO-GR). arXiv:2505.15879, code eric-ai-lab/GRIT. Confidence: exact.

The policy thinks with boxes in its thought, thinks again, and answers:
"<think> ... x1, y1, x2, y2 ... </think> <rethink> ... </rethink> <answer> ...". Its form is rewarded, and its answer:

    R = judge + 0.1 bleu + 0.5 answer tag + 0.5 thought tags + region + 0.5 variety

    judge     1 if a judge's score of the answer is above 0                           judge="name", or a verifier
    bleu      BLEU-1 of what follows <answer>                                         bleu
    tags      <answer> once; the marks of the thoughts in order, with something said  tags:answer, tags:think,rethink
    region    0.5 for any box in the thought; 1 more for as many as `count` says      boxes:thought
    variety   less for runs of 8 words or tokens that repeat                          variety:8

The column `count` holds how many boxes there are to count; rows without it are no counting data. Coordinates are never
checked. Wrong answers earn up to about 3 by form, which gives groups without a right answer a gradient.

`judge` names a reward of the run whose score in [0, 1] is made 0 or 1 (as judge='judge' with --reward judge:...); by
default answers are compared as texts, which is 0 or 1 by itself.

Defaults: k3 KL of 0.01 (paper). Its trainer takes the sample deviation + 1e-4 and one update a batch.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from cohort.axes import regularizer
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.signals.components import component
from cohort.types import Batch, StepInfo
from cohort.types.declare import declare


def is_right(score: Tensor) -> Tensor:
    """1 where a judge's score is above 0, else 0: [N]."""
    return (score > 0).to(score.dtype)


@declare(components=("judge",))
def binary_judge(batch: Batch, *, judge: str, info: StepInfo) -> Tensor:
    """r_i + w ([s_i > 0] - s_i) for the score s_i of the reward `judge` of weight w: [N]. Source: arXiv:2505.15879."""
    score = component(batch, judge, info).to(batch.dtype)
    return batch.rewards + info.reward_weights[info.reward_names.index(judge)] * (is_right(score) - score)


@recipe(
    title="GRIT: Teaching MLLMs to Think with Images",
    paper="arXiv:2505.15879",
    idea="rewards thoughts that name regions of the picture, by their form alone, beside the answer",
    confidence="exact",
    rewards=(
        "answer=text",
        "0.1*bleu",
        "0.5*tag=tags:answer",
        "0.5*tags=tags:think,rethink",
        "region=boxes:thought",
        "0.5*variety:8",
    ),
)
def grit(*, judge: str | None = None, kl_beta: Annotated[float, "[0, inf)"] = 0.01) -> Method:
    return Method(
        shaping=(use(binary_judge, judge=judge),) if judge else (),
        regularizer=(use(regularizer.kl, beta=kl_beta, estimator="k3"),) if kl_beta else (),
    )
