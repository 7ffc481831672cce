"""LLDS: On GRPO Collapse in Search-R1: The Lazy Likelihood-Displacement Death Spiral. arXiv:2512.04220.

Code vengdeng/LLDS-On-Group-Relative-Policy-Optimization-Collapse-in-Search-R1. Confidence: exact.

Before GRPO collapses on long interactions, the likelihood of right and wrong rollouts alike sinks. A drop is penalised
where it occurs, on the rollouts worth keeping, which are those with A_i >= 0 (a group without signal among them):

    d_it = old_logp - logp        an action: an unbroken run of tokens that the policy chose itself
    loss = policy loss + coef (1/D) sum_{A_i >= 0} sum_t g_it w_it max(0, d_it)

    gate="action"    g = 1 where the sum of d over the token's action is above 0
    gate="response"  ... over the whole rollout (first version of the paper);  gate="token": g = 1

D counts the tokens of the rollouts with A_i >= 0 (denominator="preserving", paper) or all of them ("all", code).
answer_weight < 1 is LLDS-MA: the weight w of the tokens of the final answer, between the last open_tag and close_tag,
which stops a policy from answering without searching. On the first update d is 0: take several updates a batch.

Defaults: coef 0.2 (paper; ports use 0.05 to 0.1), without LLDS-MA, whose weight was not recorded.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import token_mean, token_sum
from cohort.signals.spans import answer_span, text_ends, tokens_within
from cohort.types import Batch
from cohort.types.access import ModelAccess
from cohort.types.declare import declare, hooks, needs

# An advantage of 0 may come out a rounding below it.
_SLACK = 1e-9


def action_sums(x: Tensor, mask: Tensor) -> Tensor:
    """[N, T] sum of x over the action of each token: the unbroken run of tokens with mask 1 that it stands in."""
    begins = mask & ~torch.nn.functional.pad(mask, (1, -1))
    action = begins.cumsum(1)
    sums = torch.zeros(x.shape[0], x.shape[1] + 1, dtype=x.dtype, device=x.device)
    return sums.scatter_add(1, action, torch.where(mask, x, torch.zeros_like(x))).gather(1, action)


def penalised(batch: Batch, *, gate: str, answer_weight: float) -> tuple[Tensor, Tensor]:
    """(weights [N, T] of the drops that are penalised, kept [N] bool: rollouts with A_i >= 0), without gradient."""
    drop = (batch.old_logp - batch.logp).detach()
    kept = token_mean(batch.advantages, batch.mask) >= -_SLACK
    falling = {
        "token": lambda: drop,
        "action": lambda: action_sums(drop, batch.mask),
        "response": lambda: token_sum(drop, batch.mask)[:, None],
    }[gate]()
    here = batch.mask & kept[:, None] & (falling > 0) & (drop > 0)
    weight = here.to(batch.dtype)
    if answer_weight < 1:
        weight = torch.where(batch["answer_mask"].bool(), answer_weight * weight, weight)
    return weight, kept


def displacement(batch: Batch, *, gate: str, answer_weight: float, denominator: str) -> Tensor:
    """(1/D) sum of the weighted drops: scalar."""
    weight, kept = penalised(batch, gate=gate, answer_weight=answer_weight)
    counted = batch.mask & kept[:, None] if denominator == "preserving" else batch.mask
    return (weight * (batch.old_logp - batch.logp)).sum() / counted.sum().clamp(min=1)


def mark_answers(
    batch: Batch,
    access: ModelAccess,
    *,
    answer_weight: float = 1.0,
    open_tag: str = "<answer>",
    close_tag: str = "</answer>",
) -> Batch:
    """Read from the texts, where answer_weight is below 1."""
    if answer_weight >= 1 or "answer_mask" in batch:
        return batch
    spans = [answer_span(rollout.text, open_tag, close_tag) for rollout in access.rollouts]
    return batch.with_tokens(answer_mask=tokens_within(text_ends(batch, access), spans))


@needs("old_logp", answer_mask=lambda answer_weight: answer_weight < 1)
@hooks(on_scored=mark_answers)
@declare(couples=True, provides=("answer_mask",))
def lazy_displacement(
    batch: Batch,
    *,
    coef: float = 0.2,
    gate: str = "action",
    answer_weight: float = 1.0,
    denominator: str = "preserving",
) -> Tensor:
    """coef (1/D) sum over rollouts with A_i >= 0 of g w max(0, old_logp - logp): scalar. Source: arXiv:2512.04220."""
    return coef * displacement(batch, gate=gate, answer_weight=answer_weight, denominator=denominator)


@recipe(
    title="On GRPO Collapse in Search-R1: The Lazy Likelihood-Displacement Death Spiral",
    paper="arXiv:2512.04220",
    idea="penalise falling likelihood of what is worth keeping, action by action",
    confidence="exact",
)
def llds(
    *,
    coef: Annotated[float, "[0, inf)"] = 0.2,
    gate: Annotated[str, ("action", "response", "token")] = "action",
    answer_weight: Annotated[float, "[0, 1]"] = 1.0,
    denominator: Annotated[str, ("preserving", "all")] = "preserving",
    open_tag: str = "<answer>",
    close_tag: str = "</answer>",
) -> Method:
    where = {"gate": gate, "denominator": denominator, "answer_weight": answer_weight}
    tags = {"open_tag": open_tag, "close_tag": close_tag}
    return Method(regularizer=(use(lazy_displacement, coef=coef, **where, **tags),))
