"""Continuous batching over shared prefixes, through transformers' registry of attention functions."""

from __future__ import annotations

import contextvars
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface

from cohort.batch import Request
from cohort.engine.base import Completion, Sampling
from cohort.engine.picking import adaptive_of, context_of, pick
from cohort.policies.attention import Layout, Share, kept_keys, packed
from cohort.policies.causal_lm import CausalLM
from cohort.policies.head import head_of

NAME = "cohort_decode"
# The cache of the rollouts' own tokens grows by this many tokens.
BLOCK = 64
# Tokens of new contexts that are encoded in one pass.
MOST_PREFILL = 16384

_decoder: contextvars.ContextVar[SharedDecoder | None] = contextvars.ContextVar("decoder", default=None)


class SharedDecoder:
    """One call of the engine: rows of rollouts that are being decoded, and requests that wait for a row.

    Args:
        slots: most rows.
    """

    def __init__(self, policy: CausalLM, requests: Sequence[Request], sampling: Sampling, *, slots: int) -> None:
        self.policy, self.requests, self.sampling = policy, requests, sampling
        self.base = policy.base
        self.device = policy.device
        self.head = head_of(policy.model)
        self.rows = min(slots, len(requests))
        ids = sampling.stop_ids if sampling.stop_ids is not None else policy.stop_ids
        self.stops = torch.tensor(sorted(ids), dtype=torch.int64, device=self.device)
        contexts = [context_of(request) for request in requests]
        # Requests of one context come together, and contexts of like length, so that little is padding.
        self.waiting = sorted(range(len(requests)), key=lambda i: (len(contexts[i]), contexts[i], i), reverse=True)
        self.contexts = contexts
        most = max(request.max_new_tokens for request in requests)
        # One uniform number a token from the request's own stream: independent of what else is in the batch.
        streams = [np.random.Generator(np.random.Philox(request.seed)).random(most) for request in requests]
        self.uniforms = torch.from_numpy(np.stack(streams)).to(self.device)
        self.limits = torch.tensor([request.max_new_tokens for request in requests], device=self.device)
        self.adaptive = adaptive_of(list(requests), self.device)
        self.drawn = torch.zeros(len(requests), most, dtype=torch.int64, device=self.device)
        self.numbers = torch.zeros(3, len(requests), most, device=self.device)
        # Of each row: its request, the tokens drawn so far, its context's place among the stored ones, the last token.
        self.owner, self.count, self.home, self.last = (
            torch.empty(0, dtype=torch.int64, device=self.device) for _ in range(4)
        )
        # Of each stored context: token ids, and by layer its keys and values [K, P, D].
        self.stored: list[tuple[int, ...]] = []
        self.prefix: list[list[tuple[Tensor, Tensor]]] = []
        self.grid: tuple[Tensor, Tensor] | None = None
        self.stacked: list[tuple[Tensor, Tensor]] = []
        self.lengths = torch.empty(0, dtype=torch.int64, device=self.device)
        # By layer, keys and values [rows, K, capacity, D] of the rollouts' own tokens.
        self.own: list[tuple[Tensor, Tensor]] = []
        self.longest = 0
        # Of the step: what rows do not see, by window.
        self.unseen: dict[int | None, Tensor | None] = {}
        # Of each stored context: the logits [V] of the token that follows it.
        self.following: dict[tuple[int, ...], Tensor] = {}

    # the loop ------------------------------------------------------------------------------------------------------

    def run(self) -> Iterator[tuple[int, Completion]]:
        """(place of the request, completion), as rollouts finish."""
        while self.waiting or len(self.owner):
            free = self.rows - len(self.owner)
            if self.waiting and free and (not len(self.owner) or free >= max(1, self.rows // 4)):
                yield from self._admit(free)
            if len(self.owner):
                yield from self._take(self._forward())

    def _admit(self, free: int) -> Iterator[tuple[int, Completion]]:
        """Encode the contexts of waiting requests and draw the first token of each."""
        chosen: list[int] = []
        fresh: dict[tuple[int, ...], int] = {}
        tokens = 0
        while self.waiting and len(chosen) < free:
            context = self.contexts[self.waiting[-1]]
            if context not in fresh and context not in self.stored:
                if fresh and tokens + len(context) > MOST_PREFILL:
                    break
                fresh[context] = len(fresh)
                tokens += len(context)
            chosen.append(self.waiting.pop())
        self._forget({*(self.contexts[i] for i in chosen)})
        self._encode(list(fresh))
        home = torch.tensor([self.stored.index(self.contexts[i]) for i in chosen], device=self.device)
        before = len(self.owner)
        owner = torch.tensor(chosen, device=self.device)
        self.owner = torch.cat([self.owner, owner])
        self.count = torch.cat([self.count, torch.zeros_like(owner)])
        self.last = torch.cat([self.last, torch.zeros_like(owner)])
        self.home = torch.cat([self.home, home])
        self.grid = None
        logits = torch.stack([self.following[self.contexts[i]] for i in chosen])
        yield from self._take(logits, start=before)

    def _take(self, logits: Tensor, start: int = 0) -> Iterator[tuple[int, Completion]]:
        """Draw the next token of the rows from `start` on, and let go of those that end."""
        owner, count = self.owner[start:], self.count[start:]
        adaptive = None if self.adaptive is None else self.adaptive[owner]
        token, *numbers = pick(logits, self.uniforms[owner, count], self.sampling, adaptive)
        self.drawn[owner, count] = token
        self.numbers[:, owner, count] = torch.stack(numbers)
        self.count[start:] += 1
        self.last[start:] = token
        stopped = torch.isin(token, self.stops)
        ended = stopped | (self.count[start:] >= self.limits[owner])
        if bool(ended.any()):
            done = ended.nonzero()[:, 0]
            finished = list(
                zip(owner[done].tolist(), self.count[start:][done].tolist(), stopped[done].tolist(), strict=True)
            )
            self._leave(done + start)
            for place, length, stop in finished:
                logp, sampled, entropy = self.numbers[:, place, :length].tolist()
                yield place, Completion(self.drawn[place, :length].tolist(), logp, sampled, entropy, stop)

    def _leave(self, gone: Tensor) -> None:
        """Free rows: the last rows move to their places."""
        size = len(self.owner) - len(gone)
        staying = torch.ones(len(self.owner), dtype=torch.bool, device=self.device)
        staying[gone] = False
        target = gone[gone < size]
        source = staying[size:].nonzero()[:, 0] + size
        for name in ("owner", "count", "home", "last"):
            field = getattr(self, name)
            field[target] = field[source]
            setattr(self, name, field[:size])
        for keys, values in self.own:
            keys[target], values[target] = keys[source], values[source]
        self.grid = None

    # contexts ------------------------------------------------------------------------------------------------------

    def _forget(self, coming: set[tuple[int, ...]]) -> None:
        """Drop stored contexts that no row has and no request that is coming in needs."""
        used = set(self.home.tolist())
        kept = [i for i, context in enumerate(self.stored) if i in used or context in coming]
        if len(kept) < len(self.stored):
            place = {old: new for new, old in enumerate(kept)}
            self.home = torch.tensor([place[i] for i in self.home.tolist()], dtype=torch.int64, device=self.device)
            self.stored, self.prefix = [self.stored[i] for i in kept], [self.prefix[i] for i in kept]
            self.following = {context: self.following[context] for context in self.stored}

    def _encode(self, contexts: list[tuple[int, ...]]) -> None:
        """Store new contexts, with the logits of what follows them."""
        if contexts:
            shares, at = [], 0
            for context in contexts:
                shares.append(Share(at, len(context), ()))
                at += len(context)
            layout = Layout(tuple(shares), self.device)
            ids = torch.tensor([token for context in contexts for token in context], device=self.device)
            with packed(self.base, layout), kept_keys() as layers:
                out = self.base.base_model(
                    input_ids=ids[None], position_ids=layout.positions()[None], use_cache=False
                ).last_hidden_state[0]  # fmt: skip
            ends = torch.tensor([share.middle - 1 for share in shares], device=self.device)
            for context, share, logits in zip(contexts, shares, self.head(out[ends]), strict=True):
                place = slice(share.start, share.middle)
                self.stored.append(context)
                self.prefix.append([(keys[:, place].clone(), values[:, place].clone()) for keys, values in layers])
                self.following[context] = logits
        self._stack()

    def _stack(self) -> None:
        """Stored contexts side by side: by layer keys and values [M, K, P, D], right padded."""
        lengths = [len(context) for context in self.stored]
        self.lengths = torch.tensor(lengths, device=self.device)
        longest = max(lengths)
        self.stacked = []
        for layer in range(len(self.prefix[0])):
            pair = []
            for which in (0, 1):
                first = self.prefix[0][layer][which]
                whole = first.new_zeros(len(lengths), first.shape[0], longest, first.shape[2])
                for i, layers in enumerate(self.prefix):
                    whole[i, :, : lengths[i]] = layers[layer][which]
                pair.append(whole)
            self.stacked.append((pair[0], pair[1]))
        # The padded copies take over: what they were made of is a view of them from now on.
        self.prefix = [
            [(keys[i, :, : lengths[i]], values[i, :, : lengths[i]]) for keys, values in self.stacked]
            for i in range(len(lengths))
        ]

    # a step --------------------------------------------------------------------------------------------------------

    def _forward(self) -> Tensor:
        """Logits [B, V] after the last token of every row."""
        self._grow()
        if self.grid is None:
            self.grid = self._grid()
        positions = self.lengths[self.home] + self.count - 1
        self.unseen = {}
        token = _decoder.set(self)
        before = self.base.config._attn_implementation
        self.base.set_attn_implementation(NAME)
        try:
            out = self.base.base_model(input_ids=self.last[None], position_ids=positions[None], use_cache=False)
        finally:
            self.base.set_attn_implementation(before)
            _decoder.reset(token)
        return self.head(out.last_hidden_state[0])

    def _grow(self) -> None:
        """Room for one more token of every row."""
        self.longest = int(self.count.max())
        like = self.stacked[0][0]
        capacity = self.own[0][0].shape[2] if self.own else 0
        if self.longest > capacity:
            more = -(-self.longest // BLOCK) * BLOCK - capacity
            empty = [like.new_zeros(self.rows, like.shape[1], more, like.shape[3]) for _ in range(2)]
            if not self.own:
                self.own = [(empty[0].clone(), empty[1].clone()) for _ in self.stacked]
            else:
                self.own = [
                    (torch.cat([keys, empty[0]], 2), torch.cat([values, empty[1]], 2)) for keys, values in self.own
                ]

    def _grid(self) -> tuple[Tensor, Tensor]:
        """(rows [M, g]: the rows of each stored context, then any; place [B]: where each row stands in it, flat)."""
        order = torch.argsort(self.home, stable=True)
        size = torch.bincount(self.home, minlength=len(self.stored))
        start = size.cumsum(0) - size
        widest = int(size.max())
        place = torch.arange(widest, device=self.device)
        rows = order[(start[:, None] + place).clamp(max=len(order) - 1)]
        rows = torch.where(place < size[:, None], rows, torch.zeros_like(rows))
        within = torch.empty_like(order)
        within[order] = torch.arange(len(order), device=self.device) - start[self.home[order]]
        return rows, self.home * widest + within

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, softcap: float | None, window: int | None
    ) -> Tensor:
        """[B, K, R, D] of q [B, K, R, D] and the rows' new keys and values [B, K, D]."""
        assert self.grid is not None
        size, _, repeats, _ = q.shape
        rows, place = self.grid
        keys, values = self.own[layer]
        everyone = torch.arange(size, device=self.device)
        keys[everyone, :, self.count - 1] = k
        values[everyone, :, self.count - 1] = v
        own_keys, own_values = keys[:size, :, : self.longest], values[:size, :, : self.longest]
        shared_keys, shared_values = self.stacked[layer]
        q = q * scale
        # All rows of a context against it at once.
        together = q[rows].transpose(1, 2).flatten(2, 3)  # [M, K, g R, D]
        far = together @ shared_keys.transpose(2, 3)
        far = far.unflatten(2, (rows.shape[1], repeats)).transpose(1, 2).flatten(0, 1)[place]  # [B, K, R, P]
        near = q @ own_keys.transpose(2, 3)
        scores = torch.cat([far, near], -1)
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        if window not in self.unseen:
            self.unseen[window] = self._hidden(window)
        hidden = self.unseen[window]
        if hidden is not None:
            scores = scores.masked_fill(hidden[:, None, None], -torch.inf)
        weight = scores.softmax(-1)
        length = shared_keys.shape[2]
        grouped = weight[..., :length][rows].transpose(1, 2).flatten(2, 3)  # [M, K, g R, P]
        found = (grouped @ shared_values).unflatten(2, (rows.shape[1], repeats)).transpose(1, 2).flatten(0, 1)[place]
        return found + weight[..., length:] @ own_values

    def _hidden(self, window: int | None) -> Tensor | None:
        """[B, P + t] bool: stored and own tokens that a row does not see; None if every row sees all."""
        length, most = int(self.stacked[0][0].shape[2]), self.longest
        lengths = self.lengths[self.home][:, None]
        narrow = window is not None and window < length + most
        if not narrow and bool((self.count == most).all()) and bool((self.lengths == length).all()):
            return None
        far = torch.arange(length, device=self.device)[None]
        near = torch.arange(most, device=self.device)[None]
        count = self.count[:, None]
        hidden_far, hidden_near = (far >= lengths).expand(len(count), -1), near >= count
        if narrow:
            assert window is not None
            now = lengths + count - 1
            hidden_far = hidden_far | (now - far >= window)
            hidden_near = hidden_near | (now - lengths - near >= window)
        return torch.cat([hidden_far, hidden_near], 1)


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
