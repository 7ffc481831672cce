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

A soft step is an action: the engine draws it, feeds the mixture back, and keeps ids and g with the rollout
(`types/soft.py`); every pass of a model reads the same mixtures and scores them as above, so that logp, old_logp and
ref_logp are what the box says. Thinking is soft until the heaviest tokens spell `end_of_thinking`; the answer is discrete.

Defaults: K, temperatures, clamps and cut (code; K is 5 of the nucleus of top_p 0.95: set top_p); the paper's runs have
kl_beta 1e-3. Soft steps cannot be continued: not with environments of several turns, nor by methods that branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from cohort.axes import regularizer
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.types import Request, Rollout
from cohort.types.access import Sampler
from cohort.types.declare import declare
from cohort.types.soft import Clamp, Mixer


@declare(processes=True)
def soft_thinking(
    requests: Sequence[Request],
    sampler: Sampler,
    *,
    candidates: int = 5,
    end_of_thinking: str = "</think>",
    noise_factor: float = 1.0,
    gumbel_temperature: float = 0.1,
    noise_clamp: Clamp = (-1.5, 3.0),
    log_prob_cut: float = -3.0,
    prob_eps: float = 1e-6,
) -> list[Rollout]:
    """Rollouts whose thinking is soft: mixtures of the most likely tokens, until the heaviest ones end it."""
    mixer = Mixer(
        candidates,
        sampler.encode(end_of_thinking) if end_of_thinking else (),
        noise_factor,
        gumbel_temperature,
        noise_clamp,
        log_prob_cut,
        prob_eps,
    )
    return sampler.generate([replace(request, mixer=mixer) for request in requests])


@recipe(
    title="SofT-GRPO: Surpassing Discrete-Token LLM RL via Gumbel-Reparameterized Soft-Thinking Policy Optimization",
    paper="arXiv:2511.06411",
    idea="soft tokens with Gumbel noise have a density, whose ratio GRPO clips",
    confidence="exact",
)
def soft_grpo(
    *,
    kl_beta: Annotated[float, "[0, inf)"] = 0.0,
    candidates: Annotated[int, "[1, inf)"] = 5,
    end_of_thinking: str = "</think>",
    noise_factor: Annotated[float, "[0, inf)"] = 1.0,
    gumbel_temperature: Annotated[float, "(0, inf)"] = 0.1,
    noise_clamp: Clamp = (-1.5, 3.0),
    log_prob_cut: Annotated[float, "(-inf, 0)"] = -3.0,
    prob_eps: Annotated[float, "(0, 1)"] = 1e-6,
) -> Method:
    low, high = noise_clamp
    if not low < high:
        raise MethodError(f"'soft-grpo': noise_clamp={noise_clamp} must be (lower, upper) with lower < upper")
    draw = use(
        soft_thinking,
        candidates=candidates,
        end_of_thinking=end_of_thinking,
        noise_factor=noise_factor,
        gumbel_temperature=gumbel_temperature,
        noise_clamp=(float(low), float(high)),
        log_prob_cut=log_prob_cut,
        prob_eps=prob_eps,
    )
    return Method(sampling=draw, regularizer=(use(regularizer.kl, beta=kl_beta, estimator="k3"),) if kl_beta else ())
