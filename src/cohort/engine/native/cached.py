"""Decoding with transformers' own cache, for models whose attention cannot be shared (see `CausalLM.forward_mode`).

Every distinct context is encoded once and copied for its requests; rollouts that end leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from cohort.devices import tensor_on, to_device
from cohort.engine.base import Completion, Sampling, context_of
from cohort.engine.native.budget import blocks, rows_within
from cohort.engine.native.drawing import Drawing
from cohort.policies.causal_lm import CausalLM
from cohort.types import Request


class CachedDecoder:
    """Requests in waves of rollouts.

    Args:
        slots: most rollouts of a wave.
        cache_mb: see `rows_within`.
    """

    def __init__(
        self,
        policy: CausalLM,
        requests: Sequence[Request],
        sampling: Sampling,
        *,
        slots: int,
        cache_mb: float | None = None,
    ) -> None:
        self.policy, self.sampling = policy, sampling
        self.slots, self.cache_mb, self.open = slots, cache_mb, False
        # Asked after every step whether to leave off for a moment.
        self.stop: Callable[[], bool] | None = None
        # Tokens of contexts that were encoded so far.
        self.encoded = 0
        self.requests: list[Request] = []
        self.contexts: list[tuple[int, ...]] = []
        self.waiting: list[int] = []
        self.add(requests)

    def add(self, requests: Sequence[Request]) -> None:
        """Take further requests; their places follow those of the requests before."""
        self.waiting += range(len(self.requests), len(self.requests) + len(requests))
        self.requests += requests
        self.contexts += [context_of(request) for request in requests]
        # Waves of similar context length, so that little is padding; requests of one context stay together.
        self.waiting.sort(key=lambda i: (len(self.contexts[i]), self.contexts[i], i))
        contexts = [self.contexts[i] for i in self.waiting]
        own = blocks(max(self.requests[i].max_new_tokens for i in self.waiting))
        self.rows, _ = rows_within(self.policy, contexts, own, slots=self.slots, cache_mb=self.cache_mb, shared=False)

    def forget(self, place: int) -> None:
        """Nothing is kept of a request that has ended."""

    def run(self) -> Iterator[tuple[int, Completion] | None]:
        """(place of the request, completion), as rollouts finish; None where `stop` said so."""
        while self.waiting:
            places, self.waiting = self.waiting[: self.rows], self.waiting[self.rows :]
            yield from self._wave([(i, self.requests[i]) for i in places])

    def _wave(self, wave: list[tuple[int, Request]]) -> Iterator[tuple[int, Completion] | None]:
        places = [i for i, _ in wave]
        requests = [request for _, request in wave]
        drawing = Drawing(self.policy, requests, self.sampling)
        cache, mask, logits = self._prefill(requests)
        alive = torch.arange(len(requests))
        while True:
            chosen, ended = drawing.step(logits, alive)
            for row in alive[ended].tolist():
                yield places[row], drawing.completion(row)
            if bool(ended.all()):
                return
            if self.stop is not None and self.stop():
                yield None
            if bool(ended.any()):
                alive, kept = alive[~ended], to_device((~ended).nonzero()[:, 0], mask.device)
                cache.batch_select_indices(kept)
                mask, chosen = mask[kept], chosen[kept]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            embed = self.policy.base.get_input_embeddings()
            read = drawing.inputs(alive, chosen, embed)
            given = {"input_ids": chosen[:, None]} if read is None else {"inputs_embeds": read[:, None]}
            logits = self.policy.model(
                **given,
                attention_mask=mask,
                position_ids=mask.sum(1, keepdim=True) - 1,
                past_key_values=cache,
                use_cache=True,
            ).logits[:, -1]

    def _prefill(self, requests: list[Request]) -> tuple[DynamicCache, Tensor, Tensor]:
        """Encode each distinct context once: cache, attention mask [B, P] and last logits [B, V], a row a request."""
        distinct: dict[tuple[int, ...], int] = {}
        index = [distinct.setdefault(context_of(r), len(distinct)) for r in requests]
        width = max(len(c) for c in distinct)
        self.encoded += sum(map(len, distinct))
        device = self.policy.device
        ids = tensor_on([[0] * (width - len(c)) + list(c) for c in distinct], device)
        mask = tensor_on([[0] * (width - len(c)) + [1] * len(c) for c in distinct], device)
        cache = DynamicCache(config=self.policy.base.config)
        keep = {"logits_to_keep": 1} if self.policy.keeps_logits else {}
        logits = self.policy.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            **keep,
        ).logits[:, -1]
        rows = tensor_on(index, device)
        cache.batch_select_indices(rows)
        return cache, mask[rows], logits[rows]
