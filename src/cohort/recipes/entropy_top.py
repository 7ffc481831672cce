"""Beyond the 80/20 Rule: High-Entropy Minority Tokens Drive Effective Reinforcement Learning for LLM Reasoning.

arXiv:2506.01939. Confidence: exact as to TRL's implementation (quantile, mask, divisor).

Few tokens of a chain of thought are decisions; they have high entropy, and the policy term is theirs alone:

    tau  = the (1 - top_fraction) quantile of H over all own tokens of the batch
    A_it = A_it [H_it >= tau];      the divisor still counts all tokens, and a KL term acts on all of them

H is the entropy of the policy when the rollouts were drawn, which at the first update of a step is the current one, and
the batch is the step's: the paper's, where TRL takes what the loss sees at once. Default: the top 20 %. The paper's runs
are on DAPO: `dapo+entropy-top`.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import credit
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.types import Batch
from cohort.types.declare import needs


def threshold(batch: Batch, top_fraction: float) -> Tensor:
    """tau, a scalar; infinite where the batch has no token."""
    entropy = batch["old_entropy"][batch.mask]
    if not entropy.numel():
        return torch.full((), torch.inf, dtype=batch.dtype, device=batch.device)
    # torch.quantile takes no more than 16 million numbers.
    place = (1 - top_fraction) * (entropy.numel() - 1)
    ordered, below = entropy.sort().values, int(place)
    low, high = ordered[below], ordered[min(below + 1, entropy.numel() - 1)]
    return low + (place - below) * (high - low)


@needs("old_entropy")
def forking_tokens(batch: Batch, advantages: Tensor, *, top_fraction: float = 0.2) -> Tensor:
    """Advantages where H >= tau, 0 elsewhere: [N, T]. Source: arXiv:2506.01939."""
    return credit.mask_tokens(advantages, batch.mask & (batch["old_entropy"] >= threshold(batch, top_fraction)))


@recipe(
    title="Beyond the 80/20 Rule: High-Entropy Minority Tokens Drive Effective Reinforcement Learning for LLM Reasoning",
    paper="arXiv:2506.01939",
    idea="only the fifth of the tokens with the highest entropy gets an advantage",
    confidence="exact",
)
def entropy_top(*, top_fraction: Annotated[float, "[0, 1]"] = 0.2) -> Method:
    return Method(credit=(use(forking_tokens, top_fraction=top_fraction),))
