"""EMPO: Right Question is Already Half the Answer: Fully Unsupervised LLM Reasoning Incentivization.

arXiv:2504.05812, code QingyangZhang/EMPO. Confidence: exact.

Unlabelled questions: the policy's semantic entropy falls. Final answers that mean the same form clusters, rollouts that
answer nothing form one each; p(c) is the share of the group's rollouts in cluster c.

    H   = - sum_c p(c) log p(c)
    r_i = p(c(i)); 0 for who answers nothing, and for the whole group unless entropy_low <= H < entropy_high
    variant="free_form": empty_reward for who answers nothing, else 0 for an answer that repeats the question, else 0 if
    there are several clusters and none reaches min_top_probability, else p(c(i))

Normalised answers are compared (numbers by value, else texts), or equal="path.py:function" asks a judge, such as a small
verifier model: equal(prompts, first, second, **columns) -> for every pair of answers True or False, or None where
it fails, which leaves the whole group without reward. An answer joins the first cluster whose first member it equals.

Defaults: entropy_high None is log(G) for variant="math" (drops the groups where everybody disagrees; released math run)
and no bound for "free_form"; min_top_probability and empty_reward are the released ones.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_max, group_size
from cohort.signals.answers import marked, repeats
from cohort.signals.questions import question
from cohort.signals.votes import (
    FAILED,
    NO_ANSWER,
    answer_count,
    answer_entropy,
    answer_share,
    judged_ids,
    unanswered_apart,
)
from cohort.types import Batch
from cohort.types.access import Judge, ModelAccess
from cohort.types.declare import declare, hooks, needs

_SLACK = 1e-6
_EQUAL = "equal(prompts, first, second, **columns) -> for each pair of answers whether they mean the same, or None"


def in_band(ids: Tensor, batch: Batch, *, low: float, high: float | None) -> Tensor:
    """[N] bool: the entropy of the group's clusters lies in [low, high); `high` None is the logarithm of its size."""
    groups, dtype = batch.groups, torch.float64
    entropy = answer_entropy(unanswered_apart(ids), groups, dtype)
    top = group_size(groups, dtype).log() if high is None else torch.full_like(entropy, high)
    # Where all differ, the entropy is log(G) only up to rounding.
    return ((entropy >= low) & (entropy < top - _SLACK))[groups.index]


@needs("answer_id")
@hooks(on_scored=judged_ids)
@declare(group_size=2, provides=("answer_id",), functions={"equal": _EQUAL})
def semantic_reward(batch: Batch, *, entropy_low: float = 0.0, entropy_high: float | None = None) -> Tensor:
    """r_i = p(c(i)), 0 without an answer or outside the band of entropies: [N]. Source: arXiv:2504.05812."""
    ids = batch["answer_id"]
    share = answer_share(ids, batch.groups, batch.dtype)
    return torch.where(in_band(ids, batch, low=entropy_low, high=entropy_high), share, torch.zeros_like(share))


def answers_and_copies(batch: Batch, access: ModelAccess, *, equal: Judge | None = None) -> Batch:
    """Final answers as numbers, as `judged_ids`, and `copies_question` [N], 1 where one repeats the question."""
    copies = [float(repeats((marked(r.text) or "").strip(), question(r.prompt))) for r in access.rollouts]
    return judged_ids(batch, access, equal=equal).with_rollouts(
        copies_question=torch.tensor(copies, dtype=batch.dtype, device=batch.device)
    )


@needs("answer_id", "copies_question")
@hooks(on_scored=answers_and_copies)
@declare(group_size=2, provides=("answer_id", "copies_question"), functions={"equal": _EQUAL})
def free_form_reward(
    batch: Batch,
    *,
    min_top_probability: float = 0.2,
    empty_reward: float = -0.5,
    entropy_low: float = 0.0,
    entropy_high: float = math.inf,
) -> Tensor:
    """empty_reward, 0 for repeating the question or without a leading cluster, else p(c(i)): [N].

    Source: arXiv:2504.05812.
    """
    ids, groups = batch["answer_id"], batch.groups
    own = unanswered_apart(ids)
    share = answer_share(own, groups, batch.dtype)
    scattered = (group_max(share, groups) < min_top_probability) & (answer_count(own, groups) > 1)
    zero = (batch["copies_question"] > 0) | scattered[groups.index]
    rewards = torch.where(zero, 0.0, share)
    rewards = torch.where(ids == NO_ANSWER, empty_reward, rewards)
    lost = (ids == FAILED) | ~in_band(ids, batch, low=entropy_low, high=entropy_high)
    return torch.where(lost, 0.0, rewards)


@recipe(
    title="EMPO: Right Question is Already Half the Answer: Fully Unsupervised LLM Reasoning Incentivization",
    paper="arXiv:2504.05812",
    idea="no labels: an answer is worth the share of rollouts that mean the same",
    confidence="exact",
)
def empo(
    *,
    variant: Annotated[str, ("math", "free_form")] = "math",
    entropy_low: Annotated[float, "[0, inf)"] = 0.0,
    entropy_high: Annotated[float | None, "[0, inf]"] = None,
    min_top_probability: Annotated[float, "[0, 1]"] = 0.2,
    empty_reward: Annotated[float, "(-inf, inf)"] = -0.5,
    equal: str | None = None,
) -> Method:
    if entropy_high is not None and entropy_high <= entropy_low:
        raise MethodError(f"'empo': no entropy is kept: entropy_high={entropy_high} is not above {entropy_low}")
    if variant == "math":
        return Method(shaping=(use(semantic_reward, entropy_low=entropy_low, entropy_high=entropy_high, equal=equal),))
    free = {"min_top_probability": min_top_probability, "empty_reward": empty_reward, "entropy_low": entropy_low}
    high = math.inf if entropy_high is None else entropy_high
    return Method(shaping=(use(free_form_reward, entropy_high=high, equal=equal, **free),))
