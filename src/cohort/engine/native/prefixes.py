"""Contexts that rollouts are decoded after: their keys and values, held once for all rollouts of a context."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from cohort.devices import to_device
from cohort.engine.native.keys import Held, Layers, plan
from cohort.engine.native.reading import LINE, NOTHING, Caches, Reader, Reading, Shared


class Prefixes:
    """Contexts that are stored.

    Args:
        reader: reads them.
        tokens_first: have keys and values lie as fused attention of the GPU reads them.

    Attributes:
        contexts: their token ids.
        stacked: by layer keys and values [M, K, P, D] of all contexts, right padded; lengths: [M] their tokens; sizes: the
            same in the processor's memory.
        following: of each context the logits [V] of the token that follows it.
        read: tokens that have been read, those of whole contexts that were known before not counted.
    """

    def __init__(self, reader: Reader, device: torch.device, *, tokens_first: bool) -> None:
        self.reader, self.device, self.tokens_first = reader, device, tokens_first
        self.contexts: list[tuple[int, ...]] = []
        self.stacked: list[tuple[Tensor, Tensor]] = []
        self.sizes = torch.empty(0, dtype=torch.int64)
        self.lengths = to_device(self.sizes, device)
        self.following: dict[tuple[int, ...], Tensor] = {}
        self.read = 0
        # Of each context, by layer its keys and values [K, P, D].
        self._layers: list[Layers] = []
        # Whether contexts were dropped that are stacked still.
        self._stale = False

    @property
    def held(self) -> list[Held]:
        """The contexts as sequences whose keys and values are known."""
        return [Held(context, (layers,)) for context, layers in zip(self.contexts, self._layers, strict=True)]

    @property
    def shared(self) -> Shared:
        """The contexts as what sequences of their own follow."""
        return Shared(self.sizes.tolist(), self.stacked)

    def keep(self, needed: Collection[tuple[int, ...]]) -> dict[int, int]:
        """Drop the contexts that are not needed. Old place -> new place of those that stay, or {} if all do."""
        kept = [i for i, context in enumerate(self.contexts) if context in needed]
        if len(kept) == len(self.contexts):
            return {}
        self.contexts, self._layers = [self.contexts[i] for i in kept], [self._layers[i] for i in kept]
        self.following = {context: self.following[context] for context in self.contexts}
        self._stale = True
        return {old: new for new, old in enumerate(kept)}

    def add(self, contexts: Sequence[tuple[int, ...]], held: Sequence[Held] = ()) -> None:
        """Read new contexts; what they have in common with those that are stored, with each other, and with further sequences
        that are `held`, is copied."""
        if contexts:
            self._read(contexts, held)
        if contexts or self._stale:
            self._stack()

    def _read(self, contexts: Sequence[tuple[int, ...]], held: Sequence[Held]) -> None:
        sources = [*self.held, *held]
        known = plan(contexts, [each.tokens for each in sources])
        room = self.reader.room(len(contexts), max(map(len, contexts)), self.blank)
        for wave in range(max(each.wave for each in known) + 1):
            rows = [i for i, each in enumerate(known) if each.wave == wave]
            for i in rows:
                source, count, _ = known[i]
                if source is not None:
                    mine = source - len(sources)
                    found = sources[source] if mine < 0 else _row(room, mine, contexts)
                    found.copy(0, count, _row(room, i, contexts).parts[0], 0)
            logits = self.reader.read([Reading(contexts[i], known[i].length, i) for i in rows], room, NOTHING)
            self.following.update((contexts[i], row) for i, row in zip(rows, logits, strict=True))
            self.read += sum(len(contexts[i]) - known[i].length for i in rows)
        self.contexts += contexts
        self._layers += [_row(room, i, contexts).parts[0] for i in range(len(contexts))]

    def _stack(self) -> None:
        """Put the contexts side by side."""
        self._stale = False
        lengths = [len(context) for context in self.contexts]
        self.sizes = torch.tensor(lengths, dtype=torch.int64)
        self.lengths = to_device(self.sizes, self.device)
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
        self.sizes, self.lengths = torch.zeros_like(self.sizes), torch.zeros_like(self.lengths)
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


def _row(room: Caches, i: int, contexts: Sequence[tuple[int, ...]]) -> Held:
    length = len(contexts[i])
    return Held(contexts[i], ([(keys[i, :, :length], values[i, :, :length]) for keys, values in room],))
