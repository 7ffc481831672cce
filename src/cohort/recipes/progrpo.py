"""ProGRPO (ARM): Back to Basics: Revisiting Exploration in RL for LLM Reasoning via Generative Probabilities.

arXiv:2602.05281. Confidence: reconstructed. Known: the advantage, the least likely 20 % of the tokens. Inferred: that
the prompt's own tokens are treated alike, alpha, the rounding of the 20 %, the sampling policy's probabilities.

    A_i = (r_i - mean_g r) / (std_g r + eps),   plus alpha (c(q) - c(o_i)) in a group with a correct rollout
    c   = exp( mean of log p over the ceil(low_fraction n) least likely of the n tokens )

c(o_i) is over the completion, c(q) over the prompt, after its first token and under the policy before the update. Of
two equally rewarded rollouts the less confident one gains; a group that is all correct still moves mass to its rarer
solutions. A rollout without tokens has no term; for a prompt of one token c(q) is 0.

Defaults: low_fraction 0.2 (paper), for the prompt too; alpha 0.3 is the specification's.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import advantage
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_max
from cohort.types import Batch
from cohort.types.access import ModelAccess
from cohort.types.declare import declare, hooks, needs


def low_count(lengths: Tensor, *, fraction: float) -> Tensor:
    """[N] int64 max(1, ceil(fraction n)) in exact arithmetic; 0 for a length n of 0."""
    share = Fraction(fraction).limit_denominator(10**6)
    up = -(-share.numerator * lengths // share.denominator)
    return torch.where(lengths > 0, up.clamp(min=1), torch.zeros_like(up))


def confidence(logp: Tensor, mask: Tensor, *, fraction: float) -> Tensor:
    """[N] exp of the mean over the `fraction` least likely tokens of logp [N, T]; 0 for a row without tokens."""
    count = low_count(mask.sum(1), fraction=fraction)
    ascending = torch.where(mask, logp, torch.full_like(logp, torch.inf)).sort(1).values
    low = torch.arange(logp.shape[1], device=logp.device) < count[:, None]
    mean = torch.where(low, ascending, torch.zeros_like(ascending)).sum(1) / count.clamp(min=1)
    return torch.where(count > 0, mean.exp(), torch.zeros_like(mean))


def prompt_probabilities(batch: Batch, access: ModelAccess) -> Batch:
    """A forward pass of the policy over every distinct prompt.

    Returns:
        the batch with `prompt_logp` [N, Tq] of the prompt's tokens after the first, and `prompt_mask` [N, Tq] bool.
    """
    prompts = {rollout.prompt.id: rollout.prompt.tokens for rollout in access.rollouts}
    place = {key: i for i, key in enumerate(prompts)}
    rows = torch.tensor([place[rollout.prompt.id] for rollout in access.rollouts], device=batch.device)
    asked = [tokens[1:] for tokens in prompts.values()]
    logp = access.log_probs([tokens[:1] for tokens in prompts.values()], asked)["logp"].to(batch.device)
    counts = torch.tensor([len(tokens) for tokens in asked], device=batch.device)
    mask = torch.arange(logp.shape[1], device=batch.device) < counts[:, None]
    return batch.with_rollouts(prompt_logp=logp[rows], prompt_mask=mask[rows])


@needs("old_logp", "prompt_logp", "prompt_mask")
@hooks(on_scored=prompt_probabilities)
@declare(provides=("prompt_logp", "prompt_mask"))
def confidence_shifted(
    batch: Batch,
    *,
    alpha: float = 0.3,
    low_fraction: float = 0.2,
    prompt_low_fraction: float = 0.2,
    eps: float = 1e-6,
    ddof: int = 0,
) -> Tensor:
    """A_i + alpha (c(q) - c(o_i)) in groups with a correct rollout, A_i in the others: [N]. Source: arXiv:2602.05281."""
    base = advantage.zscore(batch, eps=eps, ddof=ddof)
    answer = confidence(batch.old_logp, batch.mask, fraction=low_fraction)
    prompt = confidence(batch["prompt_logp"], batch["prompt_mask"], fraction=prompt_low_fraction)
    solved = (group_max(batch.rewards, batch.groups) > 0)[batch.groups.index]
    counts = solved & batch.mask.any(1)
    return base + torch.where(counts, alpha * (prompt - answer), torch.zeros_like(answer)).to(base.dtype)


@recipe(
    title="Back to Basics: Revisiting Exploration in Reinforcement Learning for LLM Reasoning via Generative Probabilities",
    paper="arXiv:2602.05281",
    idea="less confident rollouts gain, measured by their least likely tokens",
    confidence="reconstructed: confidence of the prompt, alpha, rounding of the 20 %, policy that gives the probabilities",
)
def progrpo(
    *,
    alpha: Annotated[float, "[0, inf)"] = 0.3,
    low_fraction: Annotated[float, "(0, 1]"] = 0.2,
    prompt_low_fraction: Annotated[float, "(0, 1]"] = 0.2,
    adv_eps: Annotated[float, "(0, inf)"] = 1e-6,
    std_ddof: Annotated[int, (0, 1)] = 0,
) -> Method:
    fractions = {"low_fraction": low_fraction, "prompt_low_fraction": prompt_low_fraction}
    return Method(advantage=use(confidence_shifted, alpha=alpha, eps=adv_eps, ddof=std_ddof, **fractions))
