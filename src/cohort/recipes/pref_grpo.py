"""Pref-GRPO: Pairwise Preference Reward-based GRPO for Stable Text-to-Image Reinforcement Learning. arXiv:2508.20751.

Code CodeGoat24/Pref-GRPO. Confidence: exact (for text, in place of images).

Scores of a pointwise reward model are nearly equal within a group, and dividing by their tiny standard deviation makes
noise look like signal. Here a rollout is worth the share of comparisons that it wins in its group:

    r_i = wins_i / comparisons_i, rounded to round_decimals; an undecided comparison is half a win for each; 0 without any

judge="path.py:function" decides every pair of a group, the earlier rollout first: judge(prompts, first, second,
**columns) -> for each pair 0 if the first is better, 1 if the second, anything else if it is undecided (G (G - 1) / 2
comparisons a prompt). Without a judge, the run's reward is compared, or its component `compare`.

With `weights` (of the win rate, then of each reward of the run) every one of them is normalised by itself in the group,
they are added, normalised over the batch (batch_norm), and held within advantage_clip, as in the image setting:

    A_i = clip(sum_k w_k (r_ik - mean_g r_k) / (std_g r_k + adv_eps))

Without weights r_i alone is the reward; the advantage is GRPO's, with adv_eps and std_ddof where they are given.

Defaults: three decimals, and with weights the unbiased standard deviation with eps 1e-8 (code). The paper's image run:
weights (0.4, 0.6), batch_norm, clip 1e-4, advantage_clip 5.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import advantage
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.signals.components import component
from cohort.signals.preference import JUDGE, judged_pairs, win_counts
from cohort.types import Batch, StepInfo
from cohort.types.declare import declare, hooks, needs


def win_rates(wins: Tensor, comparisons: Tensor, *, round_decimals: int | None) -> Tensor:
    """[N] wins / comparisons, rounded to decimals (half to even); 0 without comparisons."""
    rate = torch.where(comparisons > 0, wins / comparisons.clamp(min=1), torch.zeros_like(wins))
    return rate if round_decimals is None else torch.round(rate, decimals=round_decimals)


def rewarded(batch: Batch, rate: Tensor) -> Batch:
    """The batch with the win rate [N] as reward, and as `win_rate` beside the run's reward components."""
    return batch.replace(rewards=rate).with_rollouts(win_rate=rate)


def with_win_rate(batch: Batch) -> Batch:
    """The batch with the win rate before the run's reward components."""
    return batch.replace(reward_components=torch.cat([batch["win_rate"][:, None], batch["reward_components"]], 1))


@needs("wins", "comparisons")
@hooks(on_scored=judged_pairs)
@declare(group_size=2, provides=("wins", "comparisons", "win_rate"), functions={"judge": JUDGE})
def judged_win_rate(batch: Batch, *, round_decimals: int | None = 3) -> Batch:
    """r_i = share of its comparisons that rollout i wins, by a judge: [N]. Source: arXiv:2508.20751."""
    return rewarded(batch, win_rates(batch["wins"], batch["comparisons"], round_decimals=round_decimals))


@declare(group_size=2, components=("compare",), provides=("win_rate",))
def win_rate(batch: Batch, *, compare: str | None = None, round_decimals: int | None = 3, info: StepInfo) -> Batch:
    """r_i = share of the group's other rollouts whose score is lower, equal ones half: [N]. Source: arXiv:2508.20751.

    Args:
        compare: the reward component that is compared; None compares the reward itself.
    """
    score = batch.rewards if compare is None else component(batch, compare, info)
    return rewarded(batch, win_rates(*win_counts(score, batch.groups), round_decimals=round_decimals))


@needs("reward_components", "win_rate")
@declare(group_size=2)
def bounded(
    batch: Batch,
    *,
    weights: tuple[float, ...],
    eps: float,
    ddof: int,
    batch_norm: bool,
    advantage_clip: float | None,
    info: StepInfo,
) -> Tensor:
    """clip(sum_k w_k standardised r_ik), normalised over the batch before if asked: [N]. Source: arXiv:2508.20751."""
    batch = with_win_rate(batch)
    count, names = batch["reward_components"].shape[1], ", ".join(("win_rate", *info.reward_names))
    if len(weights) != count:
        raise MethodError(
            f"'pref-grpo': {len(weights)} weights for {count} rewards: one for the win rate, then one for each reward of "
            f"the run ({names})"
        )
    total = advantage.decoupled(batch, weights=weights, eps=eps, ddof=ddof, batch_norm=batch_norm, info=info)
    return total if advantage_clip is None else total.clamp(-advantage_clip, advantage_clip)


@recipe(
    title="Pref-GRPO: Pairwise Preference Reward-based GRPO for Stable Text-to-Image Reinforcement Learning",
    paper="arXiv:2508.20751",
    idea="the reward is the share of pairwise comparisons won in the group",
    confidence="exact",
)
def pref_grpo(
    *,
    judge: str | None = None,
    compare: str | None = None,
    round_decimals: Annotated[int | None, "[0, 15]"] = 3,
    weights: tuple[float, ...] | None = None,
    adv_eps: Annotated[float | None, "(0, inf)"] = None,
    std_ddof: Annotated[int | None, (None, 0, 1)] = None,
    batch_norm: Annotated[bool, (False, True)] = False,
    advantage_clip: Annotated[float | None, "(0, inf)"] = None,
) -> Method:
    weights = tuple(weights) if weights else None
    how = {"round_decimals": round_decimals}
    shape = use(win_rate, compare=compare, **how) if judge is None else use(judged_win_rate, judge=judge, **how)
    eps, ddof = 1e-8 if adv_eps is None else adv_eps, 1 if std_ddof is None else std_ddof
    if weights is not None:
        combine = {"weights": weights, "batch_norm": batch_norm, "advantage_clip": advantage_clip}
        return Method(shaping=(shape,), advantage=use(bounded, eps=eps, ddof=ddof, **combine))
    if batch_norm or advantage_clip is not None:
        raise MethodError("'pref-grpo': batch_norm and advantage_clip act on several rewards; give their weights too")
    alone = adv_eps is None and std_ddof is None
    return Method(shaping=(shape,), advantage=None if alone else use(advantage.zscore, eps=eps, ddof=ddof))
