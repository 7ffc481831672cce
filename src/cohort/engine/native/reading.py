"""Reading tokens: having their keys and values stored, behind those that are there already."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import AttentionInterface

from cohort.devices import tensor_on, to_device
from cohort.policies.attention import causal

NAME = "cohort_read"
# Tokens that are read in one pass through the model's modules.
MOST_TOKENS = 16384
# Places that a sequence of its own may begin at: that of the context's length in a line, for the compiled code.
LINE = 16

# By layer keys and values [rows, K, t, D].
Caches = list[tuple[Tensor, Tensor]]
# (like [K, ..., D], rows, tokens) -> room for keys and values [rows, K, tokens, D]
Blank = Callable[[Tensor, int, int], tuple[Tensor, Tensor]]


class Reading(NamedTuple):
    """A sequence to be read.

    Attributes:
        tokens: all of it, behind its context.
        known: its first tokens, whose keys and values are stored already (all but the last at most).
        row: where it is stored.
        home: its context among those that are shared.
    """

    tokens: tuple[int, ...]
    known: int
    row: int
    home: int = 0


class Shared(NamedTuple):
    """Contexts that sequences follow.

    Attributes:
        lengths: tokens of each; caches: by layer their keys and values, none where all are empty.
    """

    lengths: list[int]
    caches: Caches


NOTHING = Shared([0], [])


class Reader(Protocol):
    """Reads tokens."""

    def read(self, readings: Sequence[Reading], own: Caches, shared: Shared) -> Tensor:
        """Store keys and values of what is not known of sequences; the logits [n, V] of what follows each."""
        ...

    def room(self, rows: int, tokens: int, blank: Blank) -> Caches:
        """Room for so many sequences of so many tokens; may be empty, to be made by what reads first."""
        ...

    def begin(self, context: int) -> int:
        """Where the own tokens of a sequence begin in its room, behind a context of so many tokens."""
        ...


class ModelReader:
    """Reads through a model's own modules.

    Args:
        base: the model; head: from its hidden states to logits.
    """

    def __init__(self, base: Any, head: Callable[[Tensor], Tensor], device: torch.device) -> None:
        self.base, self.head, self.device = base, head, device
        self.blank: tuple[int, int, Blank] | None = None

    def begin(self, context: int) -> int:
        """See Reader."""
        return 0

    def room(self, rows: int, tokens: int, blank: Blank) -> Caches:
        """See Reader: only the model's own layers say how large their keys are."""
        self.blank = (rows, tokens, blank)
        return []

    def read(self, readings: Sequence[Reading], own: Caches, shared: Shared) -> Tensor:
        """See Reader."""
        return torch.cat([self._pass(part, own, shared) for part in _parts(readings)])

    def _pass(self, readings: Sequence[Reading], own: Caches, shared: Shared) -> Tensor:
        fresh = [each.tokens[each.known :] for each in readings]
        ids = tensor_on([token for tokens in fresh for token in tokens], self.device)
        ends = to_device(torch.tensor([len(tokens) for tokens in fresh]).cumsum(0) - 1, self.device)
        begins = [shared.lengths[each.home] + each.known for each in readings]
        places = [torch.arange(at, at + len(tokens)) for at, tokens in zip(begins, fresh, strict=True)]
        positions = to_device(torch.cat(places), self.device)
        before = self.base.config._attn_implementation
        token = _pass.set((self, readings, own, shared))
        self.base.set_attn_implementation(NAME)
        try:
            out = self.base.base_model(input_ids=ids[None], position_ids=positions[None], use_cache=False)
        finally:
            self.base.set_attn_implementation(before)
            _pass.reset(token)
        return self.head(out.last_hidden_state[0, ends])


def _parts(readings: Sequence[Reading]) -> Iterator[list[Reading]]:
    """Readings that are done in one pass."""
    part: list[Reading] = []
    room = MOST_TOKENS
    for reading in readings:
        count = len(reading.tokens) - reading.known
        if part and count > room:
            yield part
            part, room = [], MOST_TOKENS
        part.append(reading)
        room -= count
    yield part


_pass: contextvars.ContextVar[tuple[ModelReader, Sequence[Reading], Caches, Shared] | None] = contextvars.ContextVar(
    "reading", default=None
)


def reading_attention(
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
    """Attention function of transformers' registry: the new tokens of all sequences, query [1, H, N, D] -> [1, N, H, D]."""
    now = _pass.get()
    if now is None:
        raise RuntimeError("the attention of reading was called outside it")
    reader, readings, own, shared = now
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    heads = key.shape[1]
    q, k, v = query[0].unflatten(0, (heads, -1)), key[0], value[0]
    layer = module.layer_idx
    if layer == len(own):
        assert reader.blank is not None
        rows, tokens, blank = reader.blank
        own.append(blank(k, rows, tokens))
    parts, at = [], 0
    for each in readings:
        count, length = len(each.tokens) - each.known, shared.lengths[each.home]
        seen = []
        for place, new in enumerate(x[:, at : at + count] for x in (k, v)):
            stored = own[layer][place][each.row]
            stored[:, each.known : len(each.tokens)] = new
            far = [shared.caches[layer][place][each.home, :, :length]] if length else []
            near = [stored[:, : each.known]] if each.known else []
            seen.append(torch.cat([*far, *near, new], 1) if far or near else new)
        keys, values = seen
        parts.append(causal(q[:, :, at : at + count], keys, values, scale, softcap, sliding_window))
        at += count
    return torch.cat(parts, 2).flatten(0, 1).transpose(0, 1)[None], None


AttentionInterface.register(NAME, reading_attention)
