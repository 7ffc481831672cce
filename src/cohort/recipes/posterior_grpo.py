"""Posterior-GRPO: Rewarding Reasoning Processes in Code Generation. arXiv:2508.05170.

Confidence: reconstructed. Known, from an independent re-implementation: the reward. Inferred: the reward model's pair
loss, its score in [0, 1], and that the format is a precondition for running tests.

    r_i = format_i + outcome_i + outcome_i * thinking_i

The reasoning is paid for only once its outcome is known to be right, so it cannot be raised for its own sake. In a group
of right rollouts it alone ranks them. outcome is what the run's verifier calls correct (all tests pass); `format` and
`thinking` name rewards of the run: 1 or 0 for the format, and a score of the reasoning alone in [0, 1], which is read for
right rollouts only. gate=False adds the score for wrong ones too (the paper's baseline).

The score is that of a reward model, which is trained on reasoning that a language model improved or degraded: rows with the
columns optimised, initial and degraded give the pairs (optimised, initial), (initial, degraded), (optimised, degraded).

    cohort reward-model --model BASE --data triples.jsonl --ranked optimised,initial,degraded --out thinking
    cohort train posterior-grpo --reward code --reward '0*format=format:^<think>.*</think>' \\
        --reward '0*thinking=rm:thinking?part=thought&output=sigmoid' ...

Defaults: weights 1. The paper's run: clip 0.2/0.28, mean over tokens, no KL.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.signals.components import component
from cohort.types import Batch, StepInfo
from cohort.types.declare import declare


@declare(components=("format", "thinking"))
def posterior_reward(
    batch: Batch, *, format: str = "format", thinking: str = "thinking", gate: bool = True, info: StepInfo
) -> Tensor:
    """r_i = format_i + outcome_i + outcome_i thinking_i: [N]; in place of the run's rewards. Source: arXiv:2508.05170.

    Args:
        format, thinking: names of the run's rewards.
        gate: False adds thinking_i whatever the outcome.
    """
    outcome, score = batch["accuracy"], component(batch, thinking, info)
    return component(batch, format, info) + outcome + (outcome * score if gate else score)


@recipe(
    title="Posterior-GRPO: Rewarding Reasoning Processes in Code Generation",
    paper="arXiv:2508.05170",
    idea="the quality of the reasoning counts only where the outcome is right",
    confidence="reconstructed: loss of the reward model, scaling of its score, format as a precondition",
)
def posterior_grpo(
    *, format: str = "format", thinking: str = "thinking", gate: Annotated[bool, (True, False)] = True
) -> Method:
    return Method(shaping=(use(posterior_reward, format=format, thinking=thinking, gate=gate),))
