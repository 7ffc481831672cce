"""f-GRPO: Divergence-Based Reinforcement Learning Algorithms for General LLM Alignment. arXiv:2602.05946.

Not F-GRPO with focal weights (arXiv:2602.06717). Confidence: reconstructed. Known: the split by the sign of the group
advantage, implicit reward, link and conjugate, weights |A|, the six divergences. Inferred: equal weights within a side
(descriptions of the paper name a softmax, a re-implementation 1/size of the side), the division by N, the clip.

    r_i  = beta sum_t (logp_it - ref_logp_it) + gamma sum_t (logp_it - old_logp_it)
    loss = (1/N) sum_i [ -A_i g(r_i) where A_i > 0;  |A_i| clip(f*(g(r_i)), -conj_clip, conj_clip) elsewhere ]

A variational estimate of D_f between the rollouts above and below average, with the policy as its critic:

    kl               f = t ln t                              g = r                       f*(g) = exp(r - 1)
    reverse_kl       f = -ln t                               g = -exp(-r)                f*(g) = r - 1
    pearson          f = (t - 1)^2                           g = r                       f*(g) = r + r^2 / 4
    hellinger        f = (sqrt t - 1)^2                      g = 1 - exp(-r/2)           f*(g) = exp(r/2) - 1
    jensen_shannon   f = t ln t - (1 + t) ln((1 + t)/2)      g = ln(2 sigmoid(r))        f*(g) = -ln(2 sigmoid(-r))
    total_variation  f = |t - 1| / 2                         g = tanh(r/2) / 2           f*(g) = g

link_kind="canonical" takes g = f'(exp r): kl r + 1, pearson 2 (exp r - 1), the others as above. With the other link of
pearson, f*(g) falls below r = -2, so that strongly suppressed bad rollouts would be pushed up again.

Defaults: kl, beta 0.1, conj_clip 10 are the specification's (the paper's were not seen); gamma 0 (paper; its trainer
has one above 0).
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from cohort.axes import advantage
from cohort.axes.objective import sequence_log_ratio
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.divergence import LINKS, TABLE, variational
from cohort.reductions.groups import token_sum
from cohort.types import Batch
from cohort.types.declare import declare, needs


def implicit_reward(batch: Batch, *, beta: float, gamma: float) -> Tensor:
    """r_i: [N], with gradient; 0 for a rollout without tokens."""
    reward = beta * sequence_log_ratio(batch)
    return reward + gamma * token_sum(batch.logp - batch.old_logp, batch.mask) if gamma else reward


@needs("ref_logp", old_logp=lambda gamma: gamma != 0)
@declare(couples=True, group_size=2)
def f_divergence(
    batch: Batch,
    *,
    divergence: str = "kl",
    beta: float = 0.1,
    gamma: float = 0.0,
    link_kind: str = "table",
    conj_clip: float = 10.0,
) -> Tensor:
    """Mean of -A g(r) where A > 0, |A| clip(f*(g(r))) elsewhere: scalar. Source: arXiv:2602.05946."""
    reward = implicit_reward(batch, beta=beta, gamma=gamma)
    terms = variational(reward, advantage.rollout_means(batch), link=LINKS[link_kind][divergence], conj_clip=conj_clip)
    return terms.sum() / max(1, batch.size)


@recipe(
    title="f-GRPO and Beyond: Divergence-Based Reinforcement Learning Algorithms for General LLM Alignment",
    paper="arXiv:2602.05946",
    idea="an f-divergence between good and bad rollouts, with the log ratio to the reference as its critic",
    confidence="reconstructed: equal weights within each side, division by N, the clip",
)
def f_grpo(
    *,
    divergence: Annotated[str, tuple(TABLE)] = "kl",
    beta: Annotated[float, "(0, inf)"] = 0.1,
    gamma: Annotated[float, "[0, inf)"] = 0.0,
    link_kind: Annotated[str, tuple(LINKS)] = "table",
    conj_clip: Annotated[float, "(0, inf]"] = 10.0,
    adv_eps: Annotated[float, "(0, inf)"] = 1e-6,
) -> Method:
    reward = {"beta": beta, "gamma": gamma, "link_kind": link_kind, "conj_clip": conj_clip}
    return Method(
        advantage=use(advantage.zscore, eps=adv_eps), objective=use(f_divergence, divergence=divergence, **reward)
    )
