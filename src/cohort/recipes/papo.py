"""PAPO: Perception-Aware Policy Optimization for Multimodal Reasoning. arXiv:2507.06448.

Code MikeWangWZHL/PAPO. Confidence: exact. Training needs images, which cohort does not take yet.

A second pass scores the same tokens with the image masked (`aug_logp`); the policy is rewarded for the difference that
the image makes, and kept from inflating it by noise with the masked image:

    K_it = k3 of logp against aug_logp, log ratio clipped to 20, value to 10
    loss = policy loss + kl_beta k3(ref) - gamma mean K + eta_ori Ent + eta_aug Ent_aug
    Ent  = -mean logp,   Ent_aug = -mean aug_logp         over all tokens of the batch, both minimised

mean K is taken as the policy loss is. aug_logp is the sampling policy's and carries no gradient, so that Ent_aug changes
the value alone, unless aug_gradient scores it with the current policy. For the masked image each patch of 14 pixels is
blackened with probability 0.6 (`patch_keep`). gamma may be annealed linearly to gamma_end over a share of the run;
the eta follow in proportion.

Defaults: the official ones without a reference KL, gamma 0.01 and eta 0.03 (with kl_beta 0.01: gamma 0.02 and eta 0.05,
for 3B no eta). Clip bounds are the base's: 0.2/0.3 with clip_dual 3 for GRPO, or papo:-surrogate with dapo.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from cohort.axes import regularizer, surrogate
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.kl import k3_clamped
from cohort.types import Batch, StepInfo
from cohort.types.declare import declare, needs


def patch_keep(draws: Tensor, *, height: int, width: int, patch_size: int = 14, mask_ratio: float = 0.6) -> Tensor:
    """[height, width] bool: pixels that stay; a patch is blackened where its draw in [0, 1) is below mask_ratio.

    Args:
        draws: one for each patch, row by row; patches at the border are cut.
    """
    rows, columns = -(-height // patch_size), -(-width // patch_size)
    keep = (draws >= mask_ratio).reshape(rows, columns)
    return keep.repeat_interleave(patch_size, 0).repeat_interleave(patch_size, 1)[:height, :width]


def annealed(info: StepInfo, start: float, end: float | None, share: float) -> float:
    """start, going linearly to end over that share of the run's steps; start where there is no end."""
    if end is None:
        return start
    return start + (end - start) * min(1.0, info.step / max(1.0, share * info.steps))


def seen_masked(batch: Batch, *, aug_gradient: bool) -> Tensor:
    """[N, T] log-probabilities of the tokens with the masked image."""
    return batch["aug_logp"] if aug_gradient else batch["aug_logp"].detach()


@needs("aug_logp")
def perception(
    batch: Batch,
    *,
    gamma: float = 0.01,
    gamma_end: float | None = None,
    anneal_share: float = 1.0,
    aug_gradient: bool = False,
    info: StepInfo,
) -> Tensor:
    """-gamma K_it, the difference that the image makes: [N, T]. Source: arXiv:2507.06448."""
    scale = annealed(info, gamma, gamma_end, anneal_share)
    return -scale * k3_clamped(batch.logp, seen_masked(batch, aug_gradient=aug_gradient))


@needs("aug_logp")
@declare(couples=True)
def double_entropy(
    batch: Batch,
    *,
    eta_ori: float = 0.03,
    eta_aug: float = 0.03,
    gamma: float = 0.01,
    gamma_end: float | None = None,
    anneal_share: float = 1.0,
    aug_gradient: bool = False,
    info: StepInfo,
) -> Tensor:
    """eta_ori Ent + eta_aug Ent_aug, sampled entropies with and without the image: scalar. Source: arXiv:2507.06448."""
    scale = annealed(info, gamma, gamma_end, anneal_share) / gamma if gamma else 1.0
    total = eta_ori * batch.logp + eta_aug * seen_masked(batch, aug_gradient=aug_gradient)
    mask = batch.loss_mask.to(total.dtype)
    return -scale * (mask * total).sum() / mask.sum().clamp(min=1)


@recipe(
    title="Perception-Aware Policy Optimization for Multimodal Reasoning",
    paper="arXiv:2507.06448",
    idea="reward the policy for needing the image",
    confidence="exact",
)
def papo(
    *,
    gamma: Annotated[float, "[0, inf)"] = 0.01,
    gamma_end: Annotated[float | None, "[0, inf)"] = None,
    anneal_share: Annotated[float, "(0, 1]"] = 1.0,
    eta_ori: Annotated[float, "[0, inf)"] = 0.03,
    eta_aug: Annotated[float, "[0, inf)"] = 0.03,
    aug_gradient: Annotated[bool, (True, False)] = False,
    kl_beta: Annotated[float, "[0, inf)"] = 0.0,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.2,
    clip_dual: Annotated[float | None, "(1, inf)"] = None,
) -> Method:
    clip = {"low": clip_low, "high": clip_high}
    how = {"gamma": gamma, "gamma_end": gamma_end, "anneal_share": anneal_share, "aug_gradient": aug_gradient}
    terms = [use(perception, **how)] if gamma else []
    terms += [use(double_entropy, eta_ori=eta_ori, eta_aug=eta_aug, **how)] if eta_ori or eta_aug else []
    terms += [use(regularizer.kl, beta=kl_beta, estimator="k3-clamped")] if kl_beta else []
    return Method(
        surrogate=use(surrogate.dual_clip, cap=clip_dual, **clip) if clip_dual else use(surrogate.ppo_clip, **clip),
        regularizer=tuple(terms),
        requires="vision",
    )
