"""Contexts that rollouts are decoded after: their keys and values, held once for all rollouts of a context."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from cohort.engine.native.fused import FusedStep
from cohort.policies.attention import Layout, Share, kept_keys, packed

# Numbers of a line of the cache.
LINE = 16


class Prefixes:
    """Contexts that are stored.

    Args:
        base: the model that encodes them; head: from its hidden states to logits.
        tokens_first: have keys and values lie as fused attention of the GPU reads them.

    Attributes:
        contexts: their token ids.
        stacked: by layer keys and values [M, K, P, D] of all contexts, right padded; lengths: [M] their tokens.
        following: of each context the logits [V] of the token that follows it.
    """

    def __init__(
        self, base: Any, head: Callable[[Tensor], Tensor], device: torch.device, *, tokens_first: bool
    ) -> None:
        self.base, self.head, self.device, self.tokens_first = base, head, device, tokens_first
        self.contexts: list[tuple[int, ...]] = []
        self.stacked: list[tuple[Tensor, Tensor]] = []
        self.lengths = torch.empty(0, dtype=torch.int64, device=device)
        self.following: dict[tuple[int, ...], Tensor] = {}
        # Of each context, by layer its keys and values [K, P, D].
        self._layers: list[list[tuple[Tensor, Tensor]]] = []

    def keep(self, needed: Collection[tuple[int, ...]]) -> dict[int, int]:
        """Drop the contexts that are not needed. Old place -> new place of those that stay, or {} if all do."""
        kept = [i for i, context in enumerate(self.contexts) if context in needed]
        if len(kept) == len(self.contexts):
            return {}
        self.contexts, self._layers = [self.contexts[i] for i in kept], [self._layers[i] for i in kept]
        self.following = {context: self.following[context] for context in self.contexts}
        return {old: new for new, old in enumerate(kept)}

    def add(self, contexts: Sequence[tuple[int, ...]], fused: FusedStep | None) -> None:
        """Encode new contexts, by the compiled step where there is one."""
        if contexts:
            if fused is not None:
                layers, following = fused.encode(contexts, self.blank)
                places: list[Any] = [(i, slice(None), slice(len(context))) for i, context in enumerate(contexts)]
            else:
                layers, following, places = self._pass(contexts)
            for context, place, logits in zip(contexts, places, following, strict=True):
                self.contexts.append(context)
                self._layers.append([(keys[place], values[place]) for keys, values in layers])
                self.following[context] = logits
        self._stack()

    def _pass(
        self, contexts: Sequence[tuple[int, ...]]
    ) -> tuple[list[tuple[Tensor, Tensor]], Tensor, list[tuple[slice, slice]]]:
        """By layer keys and values [K, N, D] of contexts one after the other, the logits [M, V] of what follows, and places."""
        shares, at = [], 0
        for context in contexts:
            shares.append(Share(at, len(context), ()))
            at += len(context)
        layout = Layout(tuple(shares), self.device)
        ids = torch.tensor([token for context in contexts for token in context], device=self.device)
        with packed(self.base, layout), kept_keys() as layers:
            out = self.base.base_model(
                input_ids=ids[None], position_ids=layout.positions()[None], use_cache=False
            ).last_hidden_state[0]
        ends = torch.tensor([share.middle - 1 for share in shares], device=self.device)
        return layers, self.head(out[ends]), [(slice(None), slice(share.start, share.middle)) for share in shares]

    def _stack(self) -> None:
        """Put the contexts side by side."""
        lengths = [len(context) for context in self.contexts]
        self.lengths = torch.tensor(lengths, device=self.device)
        self.stacked = []
        for layers in zip(*self._layers, strict=True):
            whole = self.blank(layers[0][0], len(lengths), max(lengths))
            for i, pair in enumerate(layers):
                for stored, own in zip(whole, pair, strict=True):
                    stored[i, :, : lengths[i]] = own
            self.stacked.append(whole)
        # The padded copies take over: what they were made of is a view of them from now on.
        self._layers = [
            [(keys[i, :, : lengths[i]], values[i, :, : lengths[i]]) for keys, values in self.stacked]
            for i in range(len(lengths))
        ]

    def empty(self) -> None:
        """Have all contexts hold no token: each row holds its own from now on, and no further context comes."""
        self.lengths = torch.zeros_like(self.lengths)
        self._layers = []
        self.stacked = [(keys[:, :, :0].clone(), values[:, :, :0].clone()) for keys, values in self.stacked]

    def blank(self, like: Tensor, rows: int, tokens: int) -> tuple[Tensor, Tensor]:
        """Zeros [rows, K, tokens, D] for keys and values like those [K, ..., D], lying as they are best attended to."""
        heads, width = like.shape[0], like.shape[-1]
        if self.tokens_first:
            keys, values = (like.new_zeros(rows, tokens, heads, width).transpose(1, 2) for _ in range(2))
            return keys, values
        values = like.new_zeros(rows, heads, tokens, width)
        if self.device.type != "cpu":
            return torch.zeros_like(values), values
        # Tokens side by side, number by number, in whole lines of the cache, so that a query meets many keys at once.
        return like.new_zeros(rows, heads, width, -(-tokens // LINE) * LINE)[..., :tokens].mT, values
