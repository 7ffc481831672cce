"""TON: Think or Not? Selective Reasoning via Reinforcement Learning for Vision-Language Models. arXiv:2505.16854.

Code kokolerk/TON. Confidence: exact, but for thoughts that the model writes itself where the data have none (from memory).

A model that never saw an empty thought does not discover that it may skip thinking. So it sees some first, with the probability
p, and then GRPO alone decides, with no term for length:

    cohort sft --thought-dropout p      <think>c</think><answer>a</answer>, or <think>\\n\\n</think><answer>a</answer>
    R = F + A                           F 1 for a completion of this form, empty thoughts included;  A 1 for a right answer
    R = F + T + V                       actions on a screen: T the action's name, V where a click hits (0 for other actions)

The rewards are the run's own, each of weight 1: `format:` with the form, and `tagged` or `action:name` and `action:place`, with
the tag <action>. A group that is right and well formed throughout has no gradient, so nothing pulls to either way of answering.
What is added to GRPO is the share of completions whose thought is empty, `skip_ratio` in the log; with the completions' mean
length it says how much is thought.

Defaults: dropout 0.5, 8 rollouts, lr 1e-6 (paper; its trainer has the sample deviation + 1e-4 and a KL term).
"""

from __future__ import annotations

import torch
from torch import Tensor

from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.signals.thoughts import skips_thought, tag_format
from cohort.types import Batch
from cohort.types.access import ModelAccess
from cohort.types.declare import declare, hooks, needs


def find_skipped(batch: Batch, access: ModelAccess) -> Batch:
    """on_scored hook: the batch with `skipped` [N], 1 where the thought stands in its tags and is empty."""
    skipped = torch.tensor([float(skips_thought(rollout.text)) for rollout in access.rollouts], device=batch.device)
    return batch.with_rollouts(skipped=skipped.to(batch.dtype))


@needs("skipped")
@hooks(on_scored=find_skipped)
@declare(provides=("skipped",))
def count_skipped(batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """The rewards as they are: [N]; and the share of rollouts that skip their thought. Source: arXiv:2505.16854."""
    return batch.rewards, {"skip_ratio": float(batch["skipped"].to(batch.dtype).mean())}


@recipe(
    title="Think or Not? Selective Reasoning via Reinforcement Learning for Vision-Language Models",
    paper="arXiv:2505.16854",
    idea="thoughts are left out at random in supervised training, so that GRPO can choose when to think",
    confidence="exact",
    rewards=(f"format:{tag_format()}", "tagged"),
)
def ton() -> Method:
    return Method(shaping=(use(count_skipped),))
