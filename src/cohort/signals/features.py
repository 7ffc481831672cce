"""Features of prompts, and which of them are alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cohort.devices import to_host
from cohort.types import Batch, Prompt
from cohort.types.access import Judge, ModelAccess, Pool, Sampler

# How a function of the user's that makes features is called, and what it returns.
EMBED = "embed(prompts, **columns) -> a vector for each prompt"
# Prompts whose hidden states are held at once.
AT_ONCE = 32


def features(prompts: Sequence[Prompt], access: Pool | Sampler | ModelAccess, embed: Judge | None = None) -> Tensor:
    """[n, d] float32, on the CPU: by the user's function, or the policy's last hidden states, mean over the prompt's tokens.

    Raises:
        UsageError: the policy has no layers that can be looked into.
    """
    if embed is not None:
        return torch.tensor(access.judge(embed, prompts), dtype=torch.float32)
    found: list[Tensor] = []
    for at in range(0, len(prompts), AT_ONCE):
        states = access.states([prompt.tokens for prompt in prompts[at : at + AT_ONCE]])
        found += [own.float().mean(0) for own in states]
    return to_host(torch.stack(found))[0] if found else torch.empty(0, 0)


def prompt_features(batch: Batch, access: ModelAccess, *, embed: Judge | None = None) -> Batch:
    """The batch with `prompt_features` [N, d] of every rollout's prompt (a hook `on_scored`)."""
    prompts = {rollout.prompt.id: rollout.prompt for rollout in access.rollouts}
    found = dict(zip(prompts, features(list(prompts.values()), access, embed), strict=True))
    rows = torch.stack([found[rollout.prompt.id] for rollout in access.rollouts])
    return batch.with_rollouts(prompt_features=rows.to(batch.device))


def nearest(query: Tensor, vectors: Tensor, *, count: int, least: float) -> list[int]:
    """Places of the `count` vectors [n, d] that are most like a query [d] by the cosine, best first, of those at or above
    `least`; the first where two are equal."""
    if not vectors.numel():
        return []
    likeness = torch.nn.functional.cosine_similarity(vectors, query[None])
    order = likeness.sort(descending=True, stable=True).indices[:count]
    return [place for place in order.tolist() if likeness[place] >= least]
