"""SofT-GRPO: Surpassing Discrete-Token LLM RL via Gumbel-Reparameterized Soft-Thinking Policy Optimization.

arXiv:2511.06411, code zz1358m/SofT-GRPO-master. Confidence: exact (the mean over candidates and the clamps are the code's).

In soft thinking the next input is a mixture of the embeddings of the K most likely tokens. With Gumbel noise on their
log-probabilities the mixture has a density, of which the ratio is taken; q are their probabilities, renormalised:

    drawn    eps_k ~ Gumbel, clamped to [-1.5, 3];   g_k = log(q_k + 1e-6) + noise_factor eps_k
             next input = sum_k softmax(g / temperature)_k E[id_k]
    scored   e_k = clamp(g_k - log(q_k(theta) + 1e-6), -1.5, 3)
             logp = mean over {k: log(q_k + 1e-6) > -3} of -e_k - exp(-e_k)       a soft step
             logp = log-probability of the token                                  a discrete one
    loss     GRPO's with rho = exp(logp - old_logp), and kl_beta k3 to the reference, both scored in the same way

Thinking is soft until the heaviest token ends it; the answer is discrete. Fields: `soft` [N, T] (1 at a soft step),
`topk_ids` and `topk_perturbed` [N, T, K] (ids and g); `old_logp` and `ref_logp` are scored as above.

Drawing needs an engine that feeds mixtures back and reports ids and g; only the update is here. Defaults: clamps and cut
(code); the paper's runs have kl_beta 1e-3.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.reductions.kl import k3
from cohort.types import Batch
from cohort.types.declare import needs

Clamp = tuple[float, float]


def perturb(
    probs: Tensor,
    uniforms: Tensor,
    *,
    noise_factor: float = 1.0,
    noise_clamp: Clamp = (-1.5, 3.0),
    prob_eps: float = 1e-6,
) -> tuple[Tensor, Tensor]:
    """(eps, g) [..., K] of a soft step: g_k = log(q_k + prob_eps) + noise_factor eps_k, from uniforms in (0, 1)."""
    noise = (-(-uniforms.log()).log()).clamp(*noise_clamp)
    return noise, (probs + prob_eps).log() + noise_factor * noise


def mixture(perturbed: Tensor, *, gumbel_temperature: float = 0.1) -> Tensor:
    """softmax(g / temperature): the weights [..., K] of the next input's embeddings."""
    return (perturbed / gumbel_temperature).softmax(-1)


def density(log_probs: Tensor, perturbed: Tensor, *, noise_clamp: Clamp, log_prob_cut: float) -> Tensor:
    """[...] mean over {k: log q_k > cut} of -e_k - exp(-e_k), e = clamp(g - log q): the log density of a soft step."""
    noise = (perturbed - log_probs).clamp(*noise_clamp)
    kept = (log_probs > log_prob_cut).to(log_probs.dtype)
    return ((-noise - (-noise).exp()) * kept).sum(-1) / kept.sum(-1).clamp(min=1)


@needs("logits", "soft", "topk_ids", "topk_perturbed")
def soft_logp(
    batch: Batch, *, noise_clamp: Clamp = (-1.5, 3.0), log_prob_cut: float = -3.0, prob_eps: float = 1e-6
) -> Tensor:
    """Log density of a soft step, log-probability of the token at a discrete one: [N, T], with gradient."""
    at = (batch["soft"] > 0).nonzero(as_tuple=True)
    # Normalised over the vocabulary or not, the softmax over the candidates is the same.
    candidates = batch["logits"].gather(-1, batch["topk_ids"])[at].softmax(-1)
    perturbed = batch["topk_perturbed"][at].to(candidates.dtype)
    soft = density((candidates + prob_eps).log(), perturbed, noise_clamp=noise_clamp, log_prob_cut=log_prob_cut)
    return batch.logp.index_put(at, soft.to(batch.logp.dtype))


@needs("old_logp", "logits", "soft", "topk_ids", "topk_perturbed")
def soft_ratio(
    batch: Batch, *, noise_clamp: Clamp = (-1.5, 3.0), log_prob_cut: float = -3.0, prob_eps: float = 1e-6
) -> Tensor:
    """rho = exp(logp - old_logp), with the density of soft steps: [N, T]. Source: arXiv:2511.06411."""
    logp = soft_logp(batch, noise_clamp=noise_clamp, log_prob_cut=log_prob_cut, prob_eps=prob_eps)
    return (logp - batch.old_logp).exp()


@needs("ref_logp", "logits", "soft", "topk_ids", "topk_perturbed")
def soft_kl(
    batch: Batch, *, beta: float, noise_clamp: Clamp = (-1.5, 3.0), log_prob_cut: float = -3.0, prob_eps: float = 1e-6
) -> Tensor:
    """beta k3, with the density of soft steps: [N, T]. Source: arXiv:2511.06411."""
    logp = soft_logp(batch, noise_clamp=noise_clamp, log_prob_cut=log_prob_cut, prob_eps=prob_eps)
    return beta * k3(logp, batch.ref_logp)


@recipe(
    title="SofT-GRPO: Surpassing Discrete-Token LLM RL via Gumbel-Reparameterized Soft-Thinking Policy Optimization",
    paper="arXiv:2511.06411",
    idea="soft tokens with Gumbel noise have a density, whose ratio GRPO clips",
    confidence="exact",
)
def soft_grpo(
    *,
    kl_beta: Annotated[float, "[0, inf)"] = 0.0,
    noise_clamp: Clamp = (-1.5, 3.0),
    log_prob_cut: Annotated[float, "(-inf, 0)"] = -3.0,
    prob_eps: Annotated[float, "(0, 1)"] = 1e-6,
) -> Method:
    low, high = noise_clamp
    if not low < high:
        raise MethodError(f"'soft-grpo': noise_clamp={noise_clamp} must be (lower, upper) with lower < upper")
    how = {"noise_clamp": noise_clamp, "log_prob_cut": log_prob_cut, "prob_eps": prob_eps}
    return Method(
        ratio=use(soft_ratio, **how),
        regularizer=(use(soft_kl, beta=kl_beta, **how),) if kl_beta else (),
        requires="sampling",
    )
