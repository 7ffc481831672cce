"""VideoChat-M1: Collaborative Policy Planning for Video Understanding via Multi-Agent Reinforcement Learning. arXiv:2511.19524.

Confidence: reconstructed: the deviation (population), the ratio of the whole output, the token mean of the KL term, the mean
over active rollouts, who judges collaboration, and the rate of agent dropout.

    R_i^k = result + format_i + collaboration_i                                        each 0 or 1, of agent i in rollout k
    A_i^k = (R_i^k - mean_k) / (std_k + eps)                                           over the rollouts in which i took part
    loss  = sum over agents of: mean over these of -exp(sum_t (logp - old_logp)) A + beta token mean of k3

Agents plan, act and read each other's results in one episode (`Observation.agent`); each has its own rollout of it, and may
have its own policy. An agent that was left out of an episode (dropout) has no rollout in it. `parts` names the rewards that
make up R; without it the run's reward is taken as it is. Nothing bounds the ratio: take one update a step, or a clip.

Defaults: beta, which is not known, 0.04 (grpo's).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import advantage, aggregation, regularizer, surrogate
from cohort.axes import ratio as ratios
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.signals.components import component
from cohort.types import Batch, StepInfo
from cohort.types.declare import declare, needs


@needs("reward_components")
@declare(components=("result", "format", "collaboration"))
def three_rewards(batch: Batch, *, result: str, format: str, collaboration: str, info: StepInfo) -> Tensor:
    """R = result + format + collaboration: [N]. Source: arXiv:2511.19524."""
    return torch.stack([component(batch, name, info) for name in (result, format, collaboration)]).sum(0)


@recipe(
    title="VideoChat-M1: Collaborative Policy Planning for Video Understanding via Multi-Agent Reinforcement Learning",
    paper="arXiv:2511.19524",
    idea="agents that read each other's results are rewarded for answer, form and collaboration, each compared with itself",
    confidence="reconstructed: the deviation, the ratio, the KL term's mean, the judge of collaboration, the dropout rate",
)
def videochat_m1(
    *,
    parts: tuple[str, str, str] | None = None,
    kl_beta: Annotated[float, "[0, inf)"] = 0.04,
    kl: Annotated[str, ("k1", "k2", "k3")] = "k3",
    adv_eps: Annotated[float, "(0, inf)"] = 1e-6,
    clip: Annotated[float | None, "(0, 1)"] = None,
) -> Method:
    if parts is not None and len(parts) != 3:
        raise MethodError("'videochat-m1': parts names three rewards: of the result, the format and the collaboration")
    named = {} if parts is None else dict(zip(("result", "format", "collaboration"), parts, strict=True))
    free = use(surrogate.unclipped)
    return Method(
        shaping=(use(three_rewards, **named),) if parts is not None else (),
        advantage=use(advantage.zscore, eps=adv_eps),
        ratio=use(ratios.sequence_product),
        surrogate=free if clip is None else use(surrogate.ppo_clip, low=clip, high=clip),
        regularizer=(use(regularizer.kl, beta=kl_beta, estimator=kl),) if kl_beta else (),
        aggregation=use(aggregation.agent_mean),
    )
