"""ReMax: A Simple, Effective, and Efficient RL Method for Aligning Large Language Models. arXiv:2310.10505.

Code liziniu/ReMax. Confidence: exact (the authors' trainer); the greedy rollout is drawn at a ten-thousandth of the run's
temperature.

REINFORCE has too much variance, PPO's critic costs half the memory. The reward of the policy's own greedy answer is a cheap
baseline that follows it. It is drawn and scored, and not trained on:

    gain_i = clip(r_i - greedy reward of the prompt, -advantage_clip, advantage_clip)
    G_it   = gain_i gamma^(own tokens from t on) - kl_beta (old_logp_it - ref_logp_it)
    loss   = -sum_it G_it logp_it / sum m                  one update a step

No group is needed: one rollout a prompt suffices. Where the greedy answer could not be scored, the gain is 0.

Defaults: kl_beta 0.05, gamma 0.99, clip 5 (released scripts; the paper's derivation, and reasoning with long answers, have
gamma 1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import aggregation, ratio, surrogate
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.kl import k1
from cohort.seeds import derive
from cohort.types import Batch, Request, Rollout
from cohort.types.access import Sampler
from cohort.types.declare import declare, needs
from cohort.types.rollout import over_parts


@dataclass(frozen=True)
class Coldest:
    """Draws what is most likely, whatever the run's temperature."""

    def factor(self, entropy: Tensor) -> Tensor:
        """[B] 1e-4: what the temperature is multiplied by."""
        return torch.full_like(entropy, 1e-4)


@declare(processes=True, provides=("greedy_rewards",))
def beside_greedy(requests: Sequence[Request], sampler: Sampler) -> list[Rollout]:
    """Rollouts with `greedy_rewards`, the reward of their prompt's greedy rollout, of the same agent; NaN where it has none."""
    first = {(request.prompt.id, request.context): request for request in reversed(requests)}
    greedy = [replace(each, seed=derive(each.seed, "greedy"), processor=Coldest()) for each in first.values()]
    drawn = sampler.generate([*requests, *greedy])
    count = len(requests)
    scored = {each.id: {part.agent: part.reward for part in each.parts} for each in sampler.grade(drawn[count:])}
    # By what was asked: an environment may show another context than that.
    found = {key: scored.get(each.id, {}) for key, each in zip(first, drawn[count:], strict=True)}
    return [
        over_parts(partial(_beside, found[r.prompt.id, r.context]), [rollout])[0]
        for rollout, r in zip(drawn[:count], requests, strict=True)
    ]


def _beside(greedy: Mapping[str, float], rollouts: Sequence[Rollout]) -> list[Rollout]:
    """The parts of an episode with the greedy reward of their agent."""
    return [
        each.replace(fields={**each.fields, "greedy_rewards": greedy.get(each.agent, math.nan)}) for each in rollouts
    ]


@needs("greedy_rewards", old_logp=lambda kl_beta: kl_beta > 0, ref_logp=lambda kl_beta: kl_beta > 0)
def above_greedy(batch: Batch, *, advantage_clip: float = 5.0, gamma: float = 0.99, kl_beta: float = 0.05) -> Tensor:
    """G_it: [N, T]. Source: arXiv:2310.10505, and its released code."""
    gain = (batch.rewards - batch["greedy_rewards"]).clamp(-advantage_clip, advantage_clip).nan_to_num(0.0)
    left = batch.mask.flip(1).cumsum(1).flip(1).to(batch.dtype)
    out = gain[:, None] * gamma**left
    if kl_beta:
        out = out - kl_beta * k1(batch.old_logp, batch.ref_logp)
    return torch.where(batch.mask, out, torch.zeros_like(out))


@recipe(
    title="ReMax: A Simple, Effective, and Efficient Reinforcement Learning Method for Aligning Large Language Models",
    paper="arXiv:2310.10505",
    idea="the reward of the greedy answer is the baseline",
    confidence="exact",
)
def remax(
    *,
    advantage_clip: Annotated[float, "(0, inf)"] = 5.0,
    gamma: Annotated[float, "(0, 1]"] = 0.99,
    kl_beta: Annotated[float, "[0, inf)"] = 0.05,
) -> Method:
    return Method(
        sampling=use(beside_greedy),
        advantage=use(above_greedy, advantage_clip=advantage_clip, gamma=gamma, kl_beta=kl_beta),
        ratio=use(ratio.none),
        surrogate=use(surrogate.reinforce),
        aggregation=use(aggregation.token_mean),
    )
