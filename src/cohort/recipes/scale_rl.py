"""ScaleRL: The Art of Scaling Reinforcement Learning Compute for LLMs. arXiv:2510.13786.

Confidence: reconstructed: the exact form of the objective (population deviation of the centred rewards of what is kept, one
divisor a prompt, no lower bound of the weight) and the eps. TRL reproduces a part.

The choices that raise the ceiling or the efficiency of large runs, together:

    kept   groups whose rewards differ; the others count in no divisor
    A_i    = (r_i - mean_g r) / (s + adv_eps),   s the population deviation of r - mean_g r over all kept rollouts
    w_it   = sg[ min(exp(logp - sampler_logp), weight_max) ]
    loss   = -(1/P) sum over kept prompts p of (1/n_p) sum_{i in p, t} w_it A_i logp_it,   n_p tokens of the prompt
    prompts  one that reached pass_rate_limit at a visit is not offered in later epochs

The weight is to the policy that sampled, so that stale rollouts count too; behaviour="old" takes old_logp. Closing the
thought at a budget is `s-grpo`'s and the run's setting, asynchrony and the head's precision are the machine's.

Defaults: weight_max 5 (TRL's recommendation; the paper finds it insensitive), limit 0.9 (paper).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import advantage, filter, surrogate
from cohort.axes import ratio as ratios
from cohort.axes.curriculum import in_epochs
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import batch_std, by_prompt, group_mean, group_sum
from cohort.types import Batch
from cohort.types.declare import State, declare, hooks


@declare(group_size=2)
def centred_scaled(batch: Batch, *, eps: float = 1e-6, ddof: int = 0) -> Tensor:
    """(r_i - mean_g r) / (s + eps), s over the centred rewards of the batch: [N]. Source: arXiv:2510.13786."""
    gain = advantage.centred(batch)
    return gain / (batch_std(gain, ddof) + eps)


def prompt_mean(batch: Batch) -> Tensor:
    """w_it = m_it / (P n_p): mean over the tokens of a prompt's rollouts, then over prompts: [N, T]."""
    mask, groups = batch.loss_mask.to(batch.dtype), batch.groups
    tokens = group_sum(mask.sum(1), groups).clamp(min=1)
    return mask / tokens[groups.index, None] / max(1, groups.count)


def _offered(size: int) -> State:
    order = torch.empty(0, dtype=torch.int64)
    return {"mastered": torch.zeros(size, dtype=torch.bool), "order": order, "position": 0, "epoch": 0}


def mastered(state: State, rows: Tensor, rates: Tensor, *, pass_rate_limit: float) -> Tensor:
    """[size] bool which prompts have reached the limit, after visits to `rows` with pass rates `rates`."""
    out: Tensor = state["mastered"].clone()
    out[rows[rates >= pass_rate_limit - 1e-9]] = True
    return out


def _visit(batch: Batch, state: State, *, pass_rate_limit: float) -> State:
    prompts = by_prompt(batch)
    rates = group_mean(batch["accuracy"].cpu(), prompts)
    return {**state, "mastered": mastered(state, prompts.labels, rates, pass_rate_limit=pass_rate_limit)}


def offered(state: State) -> Tensor:
    """Rows of the next epoch [n]: those not mastered; all of them once there are no others."""
    open_ = (~state["mastered"]).nonzero()[:, 0]
    return open_ if open_.numel() else torch.arange(state["mastered"].numel())


@hooks(init=_offered, on_rollouts=_visit)
def unmastered(state: State, *, count: int, rng: torch.Generator, pass_rate_limit: float = 0.9) -> tuple[Tensor, State]:
    """Every prompt that was not mastered once an epoch: rows [count], and the state. Source: arXiv:2510.13786."""
    return in_epochs(state, offered(state), count=count, rng=rng)


@recipe(
    title="The Art of Scaling Reinforcement Learning Compute for LLMs",
    paper="arXiv:2510.13786",
    idea="truncated weights, batch-scaled advantages, a mean a prompt, no mastered or level prompts",
    confidence="reconstructed: the exact form of the objective, eps",
)
def scale_rl(
    *,
    weight_max: Annotated[float, "(0, inf)"] = 5.0,
    adv_eps: Annotated[float, "[0, inf)"] = 1e-6,
    std_ddof: Annotated[int, (0, 1)] = 0,
    pass_rate_limit: Annotated[float, "(0, 1]"] = 0.9,
    drop_zero_variance_groups: bool = True,
    behaviour: Annotated[str, ("sampler", "old")] = "sampler",
) -> Method:
    return Method(
        curriculum=use(unmastered, pass_rate_limit=pass_rate_limit),
        filter=(use(filter.mixed_rewards),) if drop_zero_variance_groups else (),
        advantage=use(centred_scaled, eps=adv_eps, ddof=std_ddof),
        ratio=use(ratios.against_sampler if behaviour == "sampler" else ratios.token),
        surrogate=use(surrogate.weighted_reinforce, is_clip_high=weight_max - 1),
        aggregation=use(prompt_mean),
    )
