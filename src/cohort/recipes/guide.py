"""Guide-GRPO: Adaptive Guidance Accelerates Reinforcement Learning of Reasoning Models. arXiv:2506.13923.

Code vaskar-open-source-research/guide_rl. Confidence: exact; the quantile leaves padding out, which the code's holds.

Where a whole group fails, it is drawn again with a hint, but trained as an answer to the prompt without it:

    acc <= reroll_threshold: the group is drawn anew, o ~ pi_old(.|q, hint), where there is a hint
    kept if acc in [accuracy_low, accuracy_high]; with a hint, in [hint_accuracy_low, hint_accuracy_high]
    r_it = pi(o_it | q, o_<t) / pi_old(o_it | q, hint, o_<t)       guided: only the denominator sees the hint
    l_it = -A_i r / (r + gamma_i),  gamma_i = the gamma_value-quantile of the rollout's r, at least gamma_min, constant
    l_it = -min(r A, clip(r) A)                                    the others, r as in GRPO

shaping="constant" takes gamma_value for gamma, "power" r^gamma_value, "none" r itself. Further prompts replace dropped ones,
up to max_rounds rounds a step, no more than are missing (the code keeps a surplus).

Defaults: the launch script's (8 rollouts, sample std, no KL); max_rounds is ours. A prompt may lack the column `hint`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from cohort.axes.guidance import accuracy, draw_groups, flattened, with_guidance, without_guidance
from cohort.axes.surrogate import clipped
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_mean, token_quantile
from cohort.types import Batch, Request, Rollout, grouped
from cohort.types.access import Sampler
from cohort.types.declare import declare, needs

WITH_HINT = "{question}\n\nHint: {text}"


@declare(sparse_columns=("hint",), provides=("guided", "guided_logp"))
def rerolled(
    requests: Sequence[Request], sampler: Sampler, *, hint: str = "hint", reroll_threshold: float = 0.001
) -> list[Rollout]:
    """Draw every group, and those that fail again with a hint, as answers to the plain prompt. Source: arXiv:2506.13923."""
    groups = draw_groups(sampler, requests)
    failed = [r for r in requests if r.prompt.id in groups and accuracy(groups[r.prompt.id]) <= reroll_threshold]
    texts = [(r, str(r.prompt.row.get(hint) or "")) for r in failed]
    hinted = draw_groups(sampler, [with_guidance(r, WITH_HINT, text, sampler, salt=1) for r, text in texts if text])
    plain = [_marked(r, 0.0) for key, group in groups.items() if key not in hinted for r in group.rollouts]
    return flattened(grouped([*plain, *(without_guidance(_marked(r, 1.0)) for r in flattened(hinted.values()))]))


def _marked(rollout: Rollout, guided: float) -> Rollout:
    return rollout.replace(fields={**rollout.fields, "guided": guided, "guided_logp": rollout.sampler_logp})


@needs("guided")
@declare(refill="max_rounds")
def solvable(
    batch: Batch,
    *,
    accuracy_low: float = 0.001,
    accuracy_high: float = 0.999,
    hint_accuracy_low: float = 0.001,
    hint_accuracy_high: float = 0.999,
    max_rounds: int = 10,
) -> Tensor:
    """Keep groups whose accuracy, with or without a hint, lies within its bounds: [N] bool."""
    right, guided = group_mean(batch["accuracy"], batch.groups)[batch.groups.index], batch["guided"] > 0
    plain = (right >= accuracy_low) & (right <= accuracy_high)
    return torch.where(guided, (right >= hint_accuracy_low) & (right <= hint_accuracy_high), plain)


@needs("old_logp", "guided", "guided_logp")
def against_the_drawn(batch: Batch) -> Tensor:
    """exp(logp - old_logp); of a guided rollout exp(logp - guided_logp), its logarithm within +-20: [N, T]."""
    hinted = (batch.logp - batch["guided_logp"]).clamp(-20, 20)
    return torch.where(batch["guided"][:, None] > 0, hinted, batch.logp - batch.old_logp).exp()


def gammas(batch: Batch, ratio: Tensor, *, shaping: str, gamma_value: float, gamma_min: float) -> Tensor:
    """[N] gamma of each guided rollout, without gradient; 0 for the others."""
    own = token_quantile(ratio.detach(), batch.mask, gamma_value).clamp(min=gamma_min)
    gamma = own if shaping == "percentile" else torch.full_like(own, gamma_value)
    return torch.where(batch["guided"] > 0, gamma, torch.zeros_like(gamma))


@needs("guided")
def shaped(
    batch: Batch,
    ratio: Tensor,
    advantages: Tensor,
    *,
    shaping: str = "percentile",
    gamma_value: float = 0.9,
    gamma_min: float = 1e-4,
    low: float = 0.2,
    high: float = 0.2,
) -> Tensor:
    """-A r / (r + gamma), -A r^gamma, -A r of guided rollouts, clipped loss of others: [N, T]. Source: arXiv:2506.13923."""
    guided = batch["guided"][:, None] > 0
    value = torch.where(guided, ratio, torch.ones_like(ratio))
    if shaping in ("percentile", "constant"):
        gamma = gammas(batch, ratio, shaping=shaping, gamma_value=gamma_value, gamma_min=gamma_min)
        value = value / (value + gamma[:, None])
    elif shaping == "power":
        value = value**gamma_value
    return torch.where(guided, -value * advantages, clipped(ratio, advantages, low, high))


@recipe(
    title="Adaptive Guidance Accelerates Reinforcement Learning of Reasoning Models",
    paper="arXiv:2506.13923",
    idea="failed groups are drawn with a hint and trained as if without, by a shaped ratio",
    confidence="exact",
)
def guide(
    *,
    hint: str = "hint",
    reroll_threshold: Annotated[float, "[0, 1]"] = 0.001,
    accuracy_low: Annotated[float, "[0, 1]"] = 0.001,
    accuracy_high: Annotated[float, "[0, 1]"] = 0.999,
    hint_accuracy_low: Annotated[float, "[0, 1]"] = 0.001,
    hint_accuracy_high: Annotated[float, "[0, 1]"] = 0.999,
    max_rounds: Annotated[int, "[1, inf)"] = 10,
    shaping: Annotated[str, ("percentile", "constant", "power", "none")] = "percentile",
    gamma_value: Annotated[float, "(0, 1]"] = 0.9,
    gamma_min: Annotated[float, "(0, inf)"] = 1e-4,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.2,
) -> Method:
    plain = {"accuracy_low": accuracy_low, "accuracy_high": accuracy_high}
    hinted = {"hint_accuracy_low": hint_accuracy_low, "hint_accuracy_high": hint_accuracy_high}
    how = {"shaping": shaping, "gamma_value": gamma_value, "gamma_min": gamma_min, "low": clip_low, "high": clip_high}
    return Method(
        guidance=use(rerolled, hint=hint, reroll_threshold=reroll_threshold),
        filter=(use(solvable, **plain, **hinted, max_rounds=max_rounds),),
        ratio=use(against_the_drawn),
        surrogate=use(shaped, **how),
    )
