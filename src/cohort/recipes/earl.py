"""EARL: Entropy-Aware RL Alignment of LLMs for Reliable RTL Code Generation. arXiv:2511.12033.

Confidence: reconstructed. Known: gradients gated to high-entropy tokens by a threshold for each response, a KL term, a
reward of several verifiable signals. Inferred: the share of tokens, the denominator, the ungated KL, the reward's form.

    G_it = 1 for the max(1, ceil(rho L_i)) tokens of rollout i with the highest entropy (of equals the earlier), else 0
    A_it = G_it A_i                      denominator="all": mean over all tokens of the rollout
    A_it = G_it A_i L_i / sum_t G_it     denominator="kept": mean over the kept ones (with GRPO's aggregation)

A gated-out token gets no policy gradient; a KL term stays on all tokens, over all of them. The entropies are the
sampling policy's, which is the current one at the first update. The rewards of a verifier in stages may be added up as

    r = w1 [compiles] + w2 [compiles, interface matches] + w3 f [compiles, interface matches]

from the rewards that `syntax`, `interface` and `functional` (f in [0, 1]) name, in place of the run's sum.

Defaults: rho 0.2 is usual for gates on entropy; the weights are the specification's.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from cohort.axes.credit import mask_tokens, uncertain_tokens
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.signals.components import component
from cohort.types import Batch, StepInfo
from cohort.types.declare import declare, needs


@needs("old_entropy")
def entropy_gate(batch: Batch, advantages: Tensor, *, rho: float = 0.2, denominator: str = "all") -> Tensor:
    """G_it A_it, times L_i / sum_t G_it with denominator "kept": [N, T]. Source: arXiv:2511.12033."""
    kept = uncertain_tokens(batch, rho)
    gated = mask_tokens(advantages, kept)
    if denominator == "all":
        return gated
    return gated * (batch.loss_mask.sum(1, keepdim=True) / kept.sum(1, keepdim=True).clamp(min=1)).to(gated.dtype)


@declare(components=("syntax", "interface", "functional"))
def staged_reward(
    batch: Batch, *, syntax: str, interface: str, functional: str, weights: tuple[float, float, float], info: StepInfo
) -> Tensor:
    """w1 [compiles] + w2 [compiles, interface matches] + w3 f [compiles, interface matches]: [N]."""
    compiles = (component(batch, syntax, info) > 0).to(batch.dtype)
    matches = compiles * (component(batch, interface, info) > 0).to(batch.dtype)
    share = component(batch, functional, info).to(batch.dtype)
    return weights[0] * compiles + weights[1] * matches + weights[2] * share * matches


@recipe(
    title="EARL: Entropy-Aware RL Alignment of LLMs for Reliable RTL Code Generation",
    paper="arXiv:2511.12033",
    idea="only the most uncertain tokens of each rollout carry the policy gradient",
    confidence="reconstructed: share of tokens, denominator, ungated KL, form and weights of the reward",
)
def earl(
    *,
    rho: Annotated[float, "(0, 1]"] = 0.2,
    denominator: Annotated[str, ("all", "kept")] = "all",
    syntax: str | None = None,
    interface: str | None = None,
    functional: str | None = None,
    weights: tuple[float, float, float] = (0.1, 0.2, 0.7),
) -> Method:
    signals = {"syntax": syntax, "interface": interface, "functional": functional}
    missing = [name for name, reward in signals.items() if reward is None]
    if missing and len(missing) < len(signals):
        raise MethodError(f"'earl': the staged reward needs all of {', '.join(signals)}; give it {', '.join(missing)}")
    if len(weights) != 3 or min(weights) < 0:
        raise MethodError(f"'earl': weights={weights!r} must be three numbers, none below 0")
    return Method(
        shaping=() if missing else (use(staged_reward, **signals, weights=tuple(weights)),),
        credit=(use(entropy_gate, rho=rho, denominator=denominator),),
    )
