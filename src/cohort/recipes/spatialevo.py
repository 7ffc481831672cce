"""SpatialEvo: Self-Evolving Spatial Intelligence via Deterministic Geometric Environments. arXiv:2604.14144.

Code ZJU-REAL/SpatialEvo. Confidence: exact; the geometry of the questions is ours.

One policy asks questions about rooms and answers them; geometry says whether a question is valid, and its answer
(`--environment src/cohort/environments/rooms.py:Rooms`, or rows of `cohort data spatial`, which are answered alone).
For each room a kind of question is drawn with probability proportional to

    w_k = max(w_min, 1 - (S_k + p c) / (n_k + c)),    1 - p where n_k = 0

n_k and S_k count the questions answered so far and sum their accuracies, an invalid one as 0; with targets, accuracies are
divided by them and cut at 1. Rollouts of the questioner are compared with each other, and the answers of one question with each
other. Equal questions of a group are one: it counts as often as it was asked, and of its answers only the first `answers` are
trained on.

    A_i = (r_i - mean) / (std + eps),   clipped surrogate + beta k3

Defaults: p 0.35, c 2, w_min 0.05, targets 0.5 for two distances and the size of the room, beta 0.01, clip 0.2 / 0.3, sample
standard deviation, token mean, 4 answers (official configuration; dual clipping at 3 is added by dual-clip).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import advantage, regularizer, surrogate
from cohort.axes.aggregation import BY_NAME
from cohort.axes.kinds import weakest_kinds
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_order
from cohort.signals.asked import by_question, questions_of
from cohort.types import Batch, StepInfo
from cohort.types.declare import declare, needs

TARGETS = {"absolute_distance": 0.5, "distance_cam_obj": 0.5, "room_size": 0.5}


@needs("reward_components")
def first_answers(batch: Batch, *, answers: int, info: StepInfo) -> Tensor:
    """[N] bool: all but the further answers to a question that was asked several times in its group."""
    question = questions_of(batch, info)
    groups = by_question(batch, info).groups
    _, place, _ = group_order(torch.zeros_like(question), groups)
    return (question == 0) | (place < answers)


@needs("reward_components")
@declare(group_size=2)
def within_questions(batch: Batch, *, eps: float, ddof: int, info: StepInfo) -> Tensor:
    """(r - mean) / (std + eps) [N] among questioners of a prompt, and among the answers of one question."""
    return advantage.zscore(by_question(batch, info), eps=eps, ddof=ddof)


@recipe(
    title="SpatialEvo: Self-Evolving Spatial Intelligence via Deterministic Geometric Environments",
    paper="arXiv:2604.14144",
    idea="a policy asks and answers questions about space, geometry judges both; weak kinds of questions come more often",
    confidence="exact",
    rewards=("spatial",),
)
def spatialevo(
    *,
    prior: Annotated[float, "[0, 1]"] = 0.35,
    prior_count: Annotated[float, "[0, inf)"] = 2.0,
    least: Annotated[float, "(0, 1]"] = 0.05,
    targets: dict[str, float] | None = None,
    answers: Annotated[int, "[1, inf)"] = 4,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.3,
    kl_beta: Annotated[float, "[0, inf)"] = 0.01,
    adv_eps: Annotated[float, "[0, inf)"] = 1e-6,
    std_ddof: Annotated[int, (0, 1)] = 1,
    aggregation: Annotated[str, tuple(BY_NAME)] = "token",
) -> Method:
    known = {"prior": prior, "prior_count": prior_count, "least": least}
    return Method(
        curriculum=use(weakest_kinds, targets=TARGETS if targets is None else targets, **known),
        filter=(use(first_answers, answers=answers),),
        advantage=use(within_questions, eps=adv_eps, ddof=std_ddof),
        surrogate=use(surrogate.ppo_clip, low=clip_low, high=clip_high),
        regularizer=(use(regularizer.kl, beta=kl_beta, estimator="k3"),) if kl_beta else (),
        aggregation=use(BY_NAME[aggregation]),
    )
