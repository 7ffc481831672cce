"""Soft steps as a model reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cohort.types.soft import Mixer, SoftStep
from cohort.types.support import mixed


@torch.no_grad()
def mixture_of(embed: Any, steps: Sequence[SoftStep], mixer: Mixer) -> Tensor:
    """[n, d] the mixtures of token embeddings that soft steps are read as.

    Args:
        embed: the model's input embedding: token ids -> [..., d].
    """
    ids, scores = mixed(steps, embed.weight.device)
    each: Tensor = embed(ids)
    return (mixer.weights(scores)[..., None].to(each.dtype) * each).sum(-2)
