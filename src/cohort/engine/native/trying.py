"""Trying a kind of decoding step on a few tokens, before it is used for a model."""

from __future__ import annotations

import torch
from torch import Tensor

from cohort.engine.base import Sampling
from cohort.engine.native.attending import decoding
from cohort.engine.native.shared import Kind, SharedDecoder
from cohort.policies.causal_lm import CausalLM
from cohort.types import Context, Prompt, Request


@torch.inference_mode()
def agrees(policy: CausalLM, kind: Kind) -> bool:
    """Whether steps of a kind give the model's own logits: found by trying one."""
    if not kind.serves(policy.base):
        return False
    tokens = (2, 3, 4)  # which every vocabulary has
    requests = [
        Request(Prompt("", "", tokens[:n], ""), Context(tokens[:n]), seed, 2) for seed, n in enumerate((3, 3, 2))
    ]

    def logits(decoder: SharedDecoder, last: Tensor | None = None) -> Tensor:
        decoder._admit(3)
        decoder._arrange()
        decoder._grow()
        decoder.last = decoder.last if last is None else last
        return torch.cat([*decoder.prefixes.following.values(), decoder._logits().flatten()])

    sampling = Sampling(stop_ids=frozenset())
    model = SharedDecoder(policy, requests, sampling, slots=3)
    with decoding(model):
        right = logits(model)
    try:
        found = logits(SharedDecoder(policy, requests, sampling, slots=3, kind=kind), model.last)
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return False
    near = {torch.float64: 1e-6, torch.float32: 1e-3}[right.dtype] * (1.0 + float(right.abs().max()))
    return found.shape == right.shape and float((found - right).abs().max()) <= near
