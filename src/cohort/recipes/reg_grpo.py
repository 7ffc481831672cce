"""Reg-GRPO: DeepVideo-R1: Video Reinforcement Fine-Tuning via Difficulty-aware Regressive GRPO. arXiv:2506.07464.

Code mlvlab/DeepVideoR1. Confidence: reconstructed. Known: regression target, predicted advantage, squared error, KL, the
role of the buffer. Inferred: pred_eps, the gradient through mean and variance, the KL estimator, the augmentation's strength.

    rho_i  = sum_t (logp_it - old_logp_it),   Ahat_i = (rho_i - mean_g rho) / sqrt(var_g rho + pred_eps)
    loss   = (1/N) sum_i (A_i - Ahat_i)^2 + kl_beta k3,   A_i = (R_i - mean_g R) / (std_g R + eps)

Neither shifting nor scaling rho changes the first term, so it bounds no step by itself. On fresh rollouts rho is 0 and
the gradient is large, -(2/N) A_i / sqrt(pred_eps) a token: leave gradient clipping on.

Difficulty: delta is a group's mean reward less that of the groups of the last `window` steps. A group below is drawn
again from its prompt with a cue, the first min(1, strength |delta|) of a successful trace: one of its own rollouts,
else what the column `solution` holds; without either it stays. What the paper does for easy prompts, noise on video
frames, has no equal in text and is left out. augment=False trains without cues.

Defaults: kl_beta 0.04, pred_eps 1e-6, window 8 and strength 1 are ours (the paper's were not seen).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import advantage, regularizer
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_mean, token_sum
from cohort.signals.questions import question, rewrite_question
from cohort.types import Batch, Request, Rollout
from cohort.types.access import Sampler
from cohort.types.declare import State, declare, hooks, needs

WITH_CUE = "{question}\n\nThe solution may begin like this: {cue}"


def predicted_advantage(batch: Batch, *, pred_eps: float) -> Tensor:
    """Ahat_i: [N], with gradient; 0 in a group of one, and without gradient where var + pred_eps is 0."""
    rho, groups = token_sum(batch.logp - batch.old_logp, batch.mask), batch.groups
    centred = rho - group_mean(rho, groups)[groups.index]
    variance = group_mean(centred**2, groups)[groups.index] + pred_eps
    there = variance > 0
    root = torch.where(there, variance, torch.ones_like(variance)).sqrt()
    return torch.where(there, centred / root, torch.zeros_like(centred))


@needs("old_logp")
@declare(couples=True, group_size=2)
def regression(batch: Batch, *, pred_eps: float = 1e-6) -> Tensor:
    """(1/N) sum_i (A_i - Ahat_i)^2: scalar. Source: arXiv:2506.07464."""
    error = advantage.rollout_means(batch) - predicted_advantage(batch, pred_eps=pred_eps)
    return (error**2).sum() / max(1, batch.size)


def reference(state: State) -> float | None:
    """Mean of all group means in the buffer; None while it is empty."""
    means = [mean for step in state["means"] for mean in step]
    return sum(means) / len(means) if means else None


def decide(mean_reward: float, before: float | None, *, strength: float) -> tuple[float, str, float]:
    """(delta, "easier" | "harder" | "none", level in [0, 1]) for a group's mean reward and the reference."""
    delta = 0.0 if before is None else mean_reward - before
    action = "easier" if delta < 0 else "harder" if delta > 0 else "none"
    return delta, action, min(1.0, strength * abs(delta))


def _remember(batch: Batch, state: State, *, window: int = 8) -> State:
    # Of a group drawn again, what it earned without the cue counts.
    first = batch.get("plain_reward")
    means = group_mean(batch.rewards if first is None else first, batch.groups)
    return {"means": [*state["means"], means.tolist()][-window:]}


@declare(provides=("plain_reward",))
@hooks(init=lambda: {"means": []}, on_rollouts=_remember)
def cued(
    requests: Sequence[Request], sampler: Sampler, state: State, *, strength: float = 1.0, solution: str = "solution"
) -> list[Rollout]:
    """Draw every group, and those below the buffer's mean again with a cue; `plain_reward` is a group's mean without."""
    groups: dict[str, list[Rollout]] = {}
    for rollout in sampler.draw(requests):
        groups.setdefault(rollout.prompt.id, []).append(rollout)
    before, out, again = reference(state), [], []
    for members in groups.values():
        mean, prompt = sum(r.reward for r in members) / len(members), members[0].prompt
        _, action, level = decide(mean, before, strength=strength)
        trace = next((r.text for r in members if r.accuracy > 0), str(prompt.row.get(solution) or ""))
        cue = trace[: round(level * len(trace))] if action == "easier" else ""
        text = WITH_CUE.format(question=question(prompt), cue=cue)
        again += [rewrite_question(r.request, text, sampler, salt=1, plain_reward=mean) for r in members if cue]
        out += [r.replace(fields={**r.fields, "plain_reward": mean}) for r in members if not cue]
    redrawn = sampler.draw(again) if again else []
    return out + [
        r.replace(fields={**r.fields, "plain_reward": float(r.request.meta["plain_reward"])}) for r in redrawn
    ]


@recipe(
    title="DeepVideo-R1: Video Reinforcement Fine-Tuning via Difficulty-aware Regressive GRPO",
    paper="arXiv:2506.07464",
    idea="log ratios, normalised in the group, are fitted to the advantages; cues for hard prompts",
    confidence="reconstructed: pred_eps, gradient through mean and variance, KL estimator, strength of the augmentation",
)
def reg_grpo(
    *,
    kl_beta: Annotated[float, "[0, inf)"] = 0.04,
    pred_eps: Annotated[float, "[0, inf)"] = 1e-6,
    adv_eps: Annotated[float, "(0, inf)"] = 1e-6,
    augment: Annotated[bool, (True, False)] = True,
    window: Annotated[int, "[1, inf)"] = 8,
    strength: Annotated[float, "[0, inf)"] = 1.0,
    solution: str = "solution",
) -> Method:
    return Method(
        guidance=use(cued, window=window, strength=strength, solution=solution) if augment else None,
        advantage=use(advantage.zscore, eps=adv_eps),
        objective=use(regression, pred_eps=pred_eps),
        regularizer=(use(regularizer.kl, beta=kl_beta, estimator="k3"),) if kl_beta else (),
    )
