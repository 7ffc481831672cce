"""A decoder's attention in transformers' registry, where the model's own modules find it during a step."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers import AttentionInterface

from cohort.engine.native.thin import thin_products

if TYPE_CHECKING:
    from cohort.engine.native.shared import SharedDecoder

NAME = "cohort_decode"

_decoder: contextvars.ContextVar[SharedDecoder | None] = contextvars.ContextVar("decoder", default=None)


def decode_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention function of transformers' registry: one token of every row, query [1, H, B, D] -> [1, B, H, D]."""
    decoder = _decoder.get()
    if decoder is None:
        raise RuntimeError("the decoding attention was called outside a decoding step")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    heads = key.shape[1]
    q = query[0].transpose(0, 1).unflatten(1, (heads, -1))
    out = decoder.attend(
        module.layer_idx, q, key[0].transpose(0, 1), value[0].transpose(0, 1), scale, softcap, sliding_window
    )
    return out.flatten(1, 2)[None], None


AttentionInterface.register(NAME, decode_attention)


@contextlib.contextmanager
def decoding(decoder: SharedDecoder) -> Iterator[None]:
    """Have the model attend as the decoder does."""
    base = decoder.base
    before = base.config._attn_implementation
    token = _decoder.set(decoder)
    base.set_attn_implementation(NAME)
    try:
        with thin_products(base):
            yield
    finally:
        base.set_attn_implementation(before)
        _decoder.reset(token)
