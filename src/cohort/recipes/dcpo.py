"""DCPO: Distribution-Centric Policy Optimization Dominates Exploration-Exploitation Trade-off. arXiv:2601.12730.

Code 597358816/DCPO. Confidence: exact; a batch without a correct rollout, where the code divides by zero, is plain GRPO.

    A_i    = (r_i - mean_g r) / (std_g r + eps)                                  sample standard deviation
    T      = hot if H <= H0 else cold
    a      = min(|H0 - H|, cap) / (share of correct rollouts in the batch),   alpha = a / (1 + a)
    rho_it = pi_old^T(o_it) / pi_old(o_it)                                       pi^T: logits divided by T
    A_it   = (1 - alpha) A_i + alpha [r_i > correct_threshold] rho_it

The second part is REINFORCE on correct rollouts as a hotter (or colder) policy would have drawn them: with T > 1 their
unlikely tokens gain most and entropy rises, with T < 1 it falls. H is -(mean logp of the sampled tokens) at the step's
last update, over the whole step at once, 0 at the start so that the first step explores. T multiplies the run's
temperature. All-wrong groups get 0; all-correct ones still learn.

Defaults: H0 (target_entropy) 0.25, the paper's best for Qwen2.5-Math-7B; hot 1.2, cold 0.8, cap 0.1, threshold 0.05
(official code, which also has dual_clip 3 and token-mean aggregation; None leaves the surrogate alone).
Not "Dynamic Clipping Policy Optimization", which has the same short name.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from cohort.axes import advantage, surrogate
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.types import Batch
from cohort.types.access import ModelAccess
from cohort.types.declare import State, declare, hooks, needs


def controlled_temperature(entropy: float, *, target_entropy: float, hot: float, cold: float) -> float:
    """T: hot up to the target entropy, cold above it."""
    return hot if entropy <= target_entropy else cold


def reinforce_share(entropy: float, correct: float, *, target_entropy: float, cap: float) -> float:
    """alpha in [0, 1) for a state of the entropy and a share of correct rollouts; 0 if none is correct."""
    if correct <= 0:
        return 0.0
    a = min(abs(target_entropy - entropy), cap) / correct
    return a / (1 + a)


def score_at_temperature(
    batch: Batch,
    access: ModelAccess,
    state: State,
    *,
    target_entropy: float = 0.25,
    hot: float = 1.2,
    cold: float = 0.8,
) -> Batch:
    """A forward pass of the policy over every rollout at the temperature that the state calls for."""
    temperature = controlled_temperature(state["entropy"], target_entropy=target_entropy, hot=hot, cold=cold)
    contexts, completions = zip(*((r.context, r.tokens) for r in access.rollouts), strict=True)
    support = [r.support for r in access.rollouts]
    scored = access.log_probs(contexts, completions, temperature=temperature * access.temperature, support=support)
    return batch.with_tokens(old_logp_temp=scored["logp"])


def _measure(batch: Batch, state: State) -> State:
    if not bool(batch.mask.any()):
        return state
    return {"entropy": -float(batch.logp.detach()[batch.mask].mean())}


@needs("old_logp", "old_logp_temp")
@hooks(init=lambda: {"entropy": 0.0}, on_scored=score_at_temperature, on_step_end=_measure)
@declare(provides=("old_logp_temp",))
def towards_temperature(
    batch: Batch,
    advantages: Tensor,
    state: State,
    *,
    target_entropy: float = 0.25,
    cap: float = 0.1,
    correct_threshold: float = 0.05,
) -> Tensor:
    """(1 - alpha) A_it + alpha [r_i > threshold] exp(old_logp_temp_it - old_logp_it): [N, T]. Source: arXiv:2601.12730."""
    correct = (batch.rewards > correct_threshold).to(batch.rewards.dtype)
    alpha = reinforce_share(state["entropy"], float(correct.mean()), target_entropy=target_entropy, cap=cap)
    return (1 - alpha) * advantages + alpha * correct[:, None] * target_ratio(batch["old_logp_temp"], batch.old_logp)


def target_ratio(logp_temp: Tensor, logp: Tensor) -> Tensor:
    """rho = exp(logp_temp - logp), unclipped."""
    return (logp_temp - logp).exp()


@recipe(
    title="Distribution-Centric Policy Optimization Dominates Exploration-Exploitation Trade-off",
    paper="arXiv:2601.12730",
    idea="adds REINFORCE towards a hotter or colder policy, which a controller picks by entropy",
    confidence="exact",
)
def dcpo(
    *,
    target_entropy: Annotated[float, "[0, inf)"] = 0.25,
    hot: Annotated[float, "[1, inf)"] = 1.2,
    cold: Annotated[float, "(0, 1]"] = 0.8,
    cap: Annotated[float, "[0, inf)"] = 0.1,
    correct_threshold: Annotated[float, "(-inf, inf)"] = 0.05,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.2,
    dual_clip: Annotated[float | None, "(1, inf)"] = None,
    adv_eps: Annotated[float, "(0, inf)"] = 1e-6,
    std_ddof: Annotated[int, (0, 1)] = 1,
) -> Method:
    clip = {"low": clip_low, "high": clip_high}
    if dual_clip is not None and dual_clip <= 1 + clip_high:
        raise MethodError(f"'dcpo': dual_clip={dual_clip:g} must be above 1 + clip_high = {1 + clip_high:g}")
    controller = {"target_entropy": target_entropy, "hot": hot, "cold": cold, "cap": cap}
    return Method(
        advantage=use(advantage.zscore, eps=adv_eps, ddof=std_ddof),
        credit=(use(towards_temperature, correct_threshold=correct_threshold, **controller),),
        surrogate=use(surrogate.ppo_clip, **clip)
        if dual_clip is None
        else use(surrogate.dual_clip, cap=dual_clip, **clip),
    )
