"""From Accuracy to Robustness: A Study of Rule- and Model-based Verifiers in Mathematical Reasoning. arXiv:2505.22203.

Code hkust-nlp/RL-Verifier-Pitfalls. Confidence: exact for gate and verdict; reconstructed: which answers are never asked of.

Rules accept nothing wrong and miss right answers in other spellings, more of them the stronger the policy. A model finds
those, and accepts strings that a policy finds: training reward jumps while true accuracy falls. So

    verdict = rules, or else model        the model is asked only where the rules say no, there is an answer, it may be one
                                          (no code, several answers, talk about the answer ...), and not both are numbers

The rules are the reward `math:strict`, both are `equivalent:PROMPT@MODEL`; GRPO takes the 0 or 1. oracle="NAME" watches
against hacking: NAME is a reward of weight 0 that a stronger judge gives (`--reward "NAME=0*judge:..."`), `oracle/gap` the mean
accuracy less the mean of the oracle, and `cohort doctor` alarms from the first step at which it exceeds 0.1.

Defaults: the paper's run: clip 0.2 and 0.28, no KL; 1,024 prompts of 8 rollouts.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from cohort.axes import surrogate
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.signals.components import component
from cohort.types import Batch, StepInfo
from cohort.types.declare import declare


@declare(components=("oracle",))
def watched(batch: Batch, *, oracle: str = "oracle", info: StepInfo) -> tuple[Tensor, dict[str, float]]:
    """The rewards as they are: [N]; the metric `oracle/gap` is the mean accuracy less the mean of the reward `oracle`."""
    gap = batch["accuracy"].nanmean() - component(batch, oracle, info).mean()
    return batch.rewards, {"oracle/gap": float(gap)}


@recipe(
    title="From Accuracy to Robustness: A Study of Rule- and Model-based Verifiers in Mathematical Reasoning",
    paper="arXiv:2505.22203",
    idea="a model verifies only what the rules reject and may be an answer; an oracle watches the gap",
    confidence="exact; reconstructed: which answers no model is asked of",
    rewards=("math:strict",),
)
def math_verifiers(
    *,
    oracle: str | None = None,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.28,
) -> Method:
    return Method(
        shaping=(use(watched, oracle=oracle),) if oracle else (),
        surrogate=use(surrogate.ppo_clip, low=clip_low, high=clip_high),
    )
