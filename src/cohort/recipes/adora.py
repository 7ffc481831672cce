"""ADORA: Training Reasoning Models with Dynamic Advantage Estimation on Reinforcement Learning. arXiv:2602.10019.

Code ShadeCloak/ADORA. Confidence: the variants "llm" and "vlm" are the two released functions, exact; reconstructed:
how the paper joins its two criteria for language models ("and"; "or" is the other reading).

A prompt's rollouts show whether it is worth more now (TAS) or less (TDS), and its advantages are weighted by that:

    length advantage      LA: max n over correct rollouts > mean n over wrong ones that were not cut off
    difficulty advantage  DA: share of correct rollouts <= tau
    A_i <- weight_tas A_i where the criterion holds, weight_tds A_i elsewhere

variant      criterion                                 no correct rollout   no wrong one left   default weights
"and", "or"  LA and DA, LA or DA                       LA is false          LA is true          2, 1 (language models)
"difficulty" DA                                                                                 2, 1
"length"     LA                                        false                true                1, 0.1 (vision)
"llm"        LA as released                            false                true                2, 1
"vlm"        LA as released                            true                 false               1, 0.1

Only the released variants leave out wrong rollouts that were cut off: those of max_len tokens or more, or, if that is
None, those that ended at the token limit. The weight is a constant for the gradient.

Defaults: tau 0.5 and the weights are the paper's; correct means a reward above 0.5, for rewards 0 and 1.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes.credit import weight_groups
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_max, group_mean, group_sum
from cohort.types import Batch
from cohort.types.declare import declare

ATTENUATE, AMPLIFY = (1.0, 0.1), (2.0, 1.0)
RELEASED = ("llm", "vlm")
WEIGHTS = {"and": AMPLIFY, "or": AMPLIFY, "difficulty": AMPLIFY, "length": ATTENUATE, "llm": AMPLIFY, "vlm": ATTENUATE}


def length_advantage(batch: Batch, *, variant: str, correct_above: float, max_len: int | None = None) -> Tensor:
    """[P] bool: the longest correct rollout is longer than the wrong ones on average."""
    groups, lengths, right = batch.groups, batch.lengths, batch.rewards > correct_above
    wrong = ~right
    if variant in RELEASED:
        wrong = wrong & (lengths < max_len if max_len is not None else batch["truncated"] == 0)
    longest = group_max(torch.where(right, lengths, torch.full_like(lengths, -torch.inf)), groups)
    count = group_sum(wrong.to(lengths.dtype), groups)
    mean = group_sum(torch.where(wrong, lengths, torch.zeros_like(lengths)), groups) / count.clamp(min=1)
    if variant == "vlm":
        return (longest == -torch.inf) | ((count > 0) & (longest > mean))
    return (longest > -torch.inf) & ((count == 0) | (longest > mean))


def difficulty_advantage(batch: Batch, *, correct_above: float, tau: float) -> Tensor:
    """[P] bool: at most the share tau of the rollouts is correct."""
    return group_mean((batch.rewards > correct_above).to(batch.dtype), batch.groups) <= tau


def group_weights(
    batch: Batch,
    *,
    variant: str = "and",
    correct_above: float = 0.5,
    tau: float = 0.5,
    max_len: int | None = None,
    weight_tas: float = 2.0,
    weight_tds: float = 1.0,
) -> Tensor:
    """[P] weight_tas where the criterion of the variant holds, weight_tds elsewhere."""
    longer = length_advantage(batch, variant=variant, correct_above=correct_above, max_len=max_len)
    harder = difficulty_advantage(batch, correct_above=correct_above, tau=tau)
    chosen = {"and": longer & harder, "or": longer | harder, "difficulty": harder}.get(variant, longer)
    return torch.where(chosen, weight_tas, weight_tds).to(batch.dtype)


@declare(group_size=2)
def dynamic_weight(
    batch: Batch,
    advantages: Tensor,
    *,
    variant: str = "and",
    correct_above: float = 0.5,
    tau: float = 0.5,
    max_len: int | None = None,
    weight_tas: float = 2.0,
    weight_tds: float = 1.0,
) -> Tensor:
    """w_g A_it: [N, T]. Source: arXiv:2602.10019."""
    how = {"variant": variant, "correct_above": correct_above, "tau": tau, "max_len": max_len}
    weight = group_weights(batch, weight_tas=weight_tas, weight_tds=weight_tds, **how)  # type: ignore[arg-type]
    return weight_groups(batch, advantages, weight)


@recipe(
    title="ADORA: Training Reasoning Models with Dynamic Advantage Estimation on Reinforcement Learning",
    paper="arXiv:2602.10019",
    idea="prompts weighted by what their current rollouts show of length and difficulty",
    confidence="reconstructed: how the length and the difficulty criterion are joined",
)
def adora(
    *,
    variant: Annotated[str, ("and", "or", "length", "difficulty", "llm", "vlm")] = "and",
    correct_above: Annotated[float, "(-inf, inf)"] = 0.5,
    tau: Annotated[float, "[0, 1]"] = 0.5,
    max_len: Annotated[int | None, "[1, inf)"] = None,
    weight_tas: Annotated[float | None, "[0, inf)"] = None,
    weight_tds: Annotated[float | None, "[0, inf)"] = None,
) -> Method:
    tas, tds = WEIGHTS[variant]
    weights = {
        "weight_tas": tas if weight_tas is None else weight_tas,
        "weight_tds": tds if weight_tds is None else weight_tds,
    }
    how = {"variant": variant, "correct_above": correct_above, "tau": tau, "max_len": max_len}
    return Method(credit=(use(dynamic_weight, **how, **weights),))
