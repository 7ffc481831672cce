"""Decoding with transformers' own cache, for models whose attention cannot be shared (see `CausalLM.way`).

Every distinct context is encoded once and copied for its requests; rollouts that end leave the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from cohort.batch import Request
from cohort.engine.base import Completion, Sampling
from cohort.engine.picking import adaptive_of, context_of, pick
from cohort.policies.causal_lm import CausalLM


class CachedDecoder:
    """Samples from a CausalLM in waves of at most `slots` rollouts."""

    def __init__(self, policy: CausalLM, *, slots: int) -> None:
        self.policy = policy
        self.slots = slots

    @torch.no_grad()
    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """See Engine.generate."""
        # Waves of similar context length, so that little is padding; requests of one context stay together.
        order = sorted(range(len(requests)), key=lambda i: (len(context_of(requests[i])), context_of(requests[i]), i))
        for start in range(0, len(order), self.slots):
            yield from self._wave([(i, requests[i]) for i in order[start : start + self.slots]], sampling)

    def _wave(self, wave: list[tuple[int, Request]], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        places = [i for i, _ in wave]
        requests = [request for _, request in wave]
        stop_ids = sampling.stop_ids if sampling.stop_ids is not None else self.policy.stop_ids
        # One uniform number a token from the request's own stream: independent of what else is in the batch.
        most = max(r.max_new_tokens for r in requests)
        uniforms = torch.from_numpy(
            np.stack([np.random.Generator(np.random.Philox(r.seed)).random(most) for r in requests])
        )
        done = [Completion() for _ in requests]
        cache, mask, logits = self._prefill(requests)
        adaptive = adaptive_of(requests, logits.device)
        alive = torch.arange(len(requests))
        for step in range(most):
            alive_rows = alive.tolist()
            chosen, logp, sampled, entropy = pick(
                logits, uniforms[alive, step], sampling, None if adaptive is None else adaptive[alive]
            )
            keep = []
            for k, (row, token, lp, slp, ent) in enumerate(
                zip(alive_rows, chosen.tolist(), logp.tolist(), sampled.tolist(), entropy.tolist(), strict=True)
            ):
                out = done[row]
                out.tokens.append(token)
                out.logp.append(lp)
                out.sampled_logp.append(slp)
                out.entropy.append(ent)
                out.finished = token in stop_ids
                if out.finished or step + 1 >= requests[row].max_new_tokens:
                    yield places[row], out
                else:
                    keep.append(k)
            if not keep:
                return
            if len(keep) < len(alive_rows):
                kept = torch.tensor(keep, device=logits.device)
                cache.batch_select_indices(kept)
                alive, mask, chosen = alive[keep], mask[kept], chosen[kept]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            logits = self.policy.model(
                input_ids=chosen[:, None],
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
        device = self.policy.device
        ids = torch.tensor([[0] * (width - len(c)) + list(c) for c in distinct], device=device)
        mask = torch.tensor([[0] * (width - len(c)) + [1] * len(c) for c in distinct], device=device)
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
        rows = torch.tensor(index, device=device)
        cache.batch_select_indices(rows)
        return cache, mask[rows], logits[rows]
