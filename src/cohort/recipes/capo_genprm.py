"""CAPO: Towards Enhancing LLM Reasoning through Verifiable Generative Credit Assignment. arXiv:2508.02298.

Repository andyclsr/CAPO. (Not Curvature-Aware Policy Optimization.) Confidence: reconstructed. Known: token rewards,
weights, voting. Inferred: population standard deviation and eps, the "average" vote, that k/2 of k is a majority.

A general language model is asked k times which steps of a rollout are wrong by themselves, and its critiques vote:

    v_it = share of the critiques that call the step of token t wrong
    e_it = [v = 1] "intersection", [v >= 1/2] "majority", [v > 0] "union", v "average"
    R_it = w_whole r_i - w_process e_it
    A_it = (R_it - mean) / (std + eps)          over all tokens of all rollouts of the group

With w_whole > w_process the outcome r_i (0 or 1) stays dominant: 2, 1, 0, -1 for right or wrong answer and step. Wrong
steps give an all-right group a signal. Steps are what blank lines separate, numbered from 0.

judge="path.py:function" is needed for training: judge(prompts, completions, **columns) -> for each completion, whose
steps are numbered as in "Step 0: ...", k lists of the numbers of its wrong steps (an empty list for none, or where the
critique cannot be read).

Defaults: weights 2 and 1 (paper, with k = 4). vote "majority" is one of the paper's two for 7B models; for 1.5B it takes
"intersection".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from cohort.axes.advantage import standardise
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.signals.spans import spread_over_tokens, step_index, steps, text_ends, with_step_numbers
from cohort.types import Batch, Groups
from cohort.types.access import Judge, ModelAccess
from cohort.types.declare import declare, hooks, needs

JUDGE = "judge(prompts, completions, **columns) -> for each completion lists of its wrong steps, one list a critique"
VOTES = ("intersection", "majority", "union", "average")


def wrong_share(critiques: Sequence[Sequence[Sequence[int]]], count: int) -> Tensor:
    """[N, count] share of a rollout's critiques that list each step; a step listed twice counts once.

    Args:
        critiques: for each rollout, lists of wrong steps; what is no number of a step is left out.
    """
    out = torch.zeros(len(critiques), count, dtype=torch.float64)
    for row, lists in enumerate(critiques):
        for wrong in lists:
            for step in {step for step in wrong or () if isinstance(step, int) and 0 <= step < count}:
                out[row, step] += 1
        out[row] /= max(len(lists), 1)
    return out


def voted(share: Tensor, vote: str) -> Tensor:
    """Weight in [0, 1] of a step or token by the share of critiques that call it wrong; any shape."""
    if vote == "average":
        return share
    agreed = {"intersection": share >= 1, "majority": share >= 0.5, "union": share > 0}[vote]
    return agreed.to(share.dtype)


def critiqued(batch: Batch, access: ModelAccess, *, judge: Judge) -> Batch:
    """A judge's critiques of every rollout. An on_scored hook: the batch with `wrong_share` [N, T]."""
    spans = [steps(rollout.text) for rollout in access.rollouts]
    asked = [i for i, each in enumerate(spans) if each]
    prompts = [access.rollouts[i].prompt for i in asked]
    critiques: list[Sequence[Sequence[int]]] = [[]] * len(spans)
    completions = [with_step_numbers(access.rollouts[i].text, spans[i]) for i in asked]
    for i, lists in zip(asked, access.judge(judge, prompts, completions=completions), strict=True):
        critiques[i] = lists
    share = wrong_share(critiques, max((len(each) for each in spans), default=0))
    share = share.to(batch.device, batch.dtype)
    return batch.with_tokens(wrong_share=spread_over_tokens(share, step_index(text_ends(batch, access), spans)))


def token_rewards(batch: Batch, *, w_whole: float, w_process: float, vote: str) -> Tensor:
    """R_it = w_whole r_i - w_process e_it: [N, T]."""
    return w_whole * batch.rewards[:, None] - w_process * voted(batch["wrong_share"], vote)


@needs("wrong_share")
@hooks(on_scored=critiqued)
@declare(group_size=2, provides=("wrong_share",), functions={"judge": JUDGE})
def token_zscore(
    batch: Batch,
    *,
    w_whole: float = 2.0,
    w_process: float = 1.0,
    vote: str = "majority",
    eps: float = 1e-6,
    ddof: int = 0,
) -> Tensor:
    """A_it = (R_it - mean) / (std + eps) of R_it = w_whole r_i - w_process e_it over all tokens of the group: [N, T].

    Source: arXiv:2508.02298.
    """
    rewards, mask = token_rewards(batch, w_whole=w_whole, w_process=w_process, vote=vote), batch.mask
    group = Groups(batch.groups.index[:, None].expand_as(mask)[mask], batch.groups.labels)
    out = torch.zeros_like(rewards)
    out[mask] = standardise(rewards[mask], group, eps=eps, ddof=ddof)
    return out


@recipe(
    title="CAPO: Towards Enhancing LLM Reasoning through Verifiable Generative Credit Assignment",
    paper="arXiv:2508.02298",
    idea="a language model marks the wrong steps, whose tokens earn less",
    confidence="reconstructed: normalisation over tokens, average vote, ties in the majority",
)
def capo_genprm(
    *,
    judge: str | None = None,
    w_whole: Annotated[float, "[0, inf)"] = 2.0,
    w_process: Annotated[float, "[0, inf)"] = 1.0,
    vote: Annotated[str, VOTES] = "majority",
    adv_eps: Annotated[float, "(0, inf)"] = 1e-6,
    std_ddof: Annotated[int, (0, 1)] = 0,
) -> Method:
    how = {"w_whole": w_whole, "w_process": w_process, "vote": vote, "eps": adv_eps, "ddof": std_ddof}
    return Method(advantage=use(token_zscore, judge=judge, **how))
