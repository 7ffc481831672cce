"""Drawing the next token of every rollout from its logits, and keeping what was drawn."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from cohort.devices import to_device, to_host
from cohort.engine.base import Completion, Sampling, context_of
from cohort.engine.stopping import StopStrings
from cohort.engine.truncation import allowed, draw
from cohort.errors import UsageError
from cohort.policies.causal_lm import CausalLM
from cohort.policies.diverging import diverged, first_not_finite
from cohort.policies.head import entropy_of
from cohort.policies.soft import mixture_of
from cohort.seeds import derive
from cohort.types import Processor, Request
from cohort.types.soft import SoftStep
from cohort.types.support import Candidates, Rule, candidate_sets


class Drawn(NamedTuple):
    """A token for each of B rows, and what is known of it (see Completion): [B] each, and kept [B, V] or None."""

    token: Tensor
    logp: Tensor
    sampled_logp: Tensor
    entropy: Tensor
    policy_logp: Tensor
    candidates: Tensor | None


def pick(
    logits: Tensor,
    uniforms: Tensor,
    sampling: Sampling,
    *,
    rule: Rule | None = None,
    column: Tensor | None = None,
    factors: Callable[[Tensor], Tensor] | None = None,
) -> Drawn:
    """The next token of every row.

    Args:
        logits: [B, V]. Log-probabilities are taken in float32 (float64 of float64 logits).
        uniforms: [B] float64 in [0, 1).
        rule: what shapes every distribution; `column`: [B] place of the token in its completion.
        factors: entropies [B] -> what the temperature of each row is multiplied by [B]; NaN where it stays.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    temperature = 1.0 if sampling.greedy else sampling.temperature
    raw = (logits if temperature == 1.0 else logits / temperature).log_softmax(-1)
    policy = raw
    if rule is not None and not rule.free:
        assert column is not None
        logits = rule.apply(logits, column)
        policy = (logits / temperature).log_softmax(-1)
    drawn_from, keep = policy, None
    probs = policy.exp()
    entropy = entropy_of(policy, whole=policy is raw, probs=probs)
    if factors is not None and not sampling.greedy:
        drawn_from = _reheated(logits, policy, temperature, factors(entropy))
    if sampling.truncated:
        keep = allowed(drawn_from, sampling)
        # From the logits, as the trainer takes them: the same rounding.
        over = (logits / temperature).masked_fill(~keep, -torch.inf).log_softmax(-1)
        drawn_from = over if factors is None else drawn_from.masked_fill(~keep, -torch.inf).log_softmax(-1)
        policy, probs = over, over.exp()
        entropy = entropy_of(policy, whole=False, probs=probs)
    chosen = (
        policy.argmax(-1) if sampling.greedy else draw(probs if drawn_from is policy else drawn_from.exp(), uniforms)
    ).clamp(max=logits.shape[1] - 1)  # of NaN the place past the end is found
    at = chosen[:, None]
    own = policy.gather(1, at)[:, 0]
    logp, sampled = (own if each is policy else each.gather(1, at)[:, 0] for each in (raw, drawn_from))
    return Drawn(chosen, logp, sampled, entropy, own, keep)


def _reheated(logits: Tensor, log_probs: Tensor, temperature: float, factor: Tensor) -> Tensor:
    """[B, V] log-probabilities at each row's own temperature; `log_probs` where its factor is NaN."""
    own = temperature * factor.nan_to_num(1.0)
    return torch.where(factor.isnan()[:, None], log_probs, (logits / own[:, None]).log_softmax(-1))


class SoftDrawing:
    """The soft steps of a request.

    Attributes:
        steps: those so far, None for discrete ones.
    """

    def __init__(self, request: Request, most: int) -> None:
        assert request.mixer is not None
        if any(segment.support is not None and segment.support.soft is not None for segment in request.history):
            raise UsageError(
                "a rollout of soft steps cannot be gone on from: take an environment of one turn, and a method that draws "
                "whole rollouts"
            )
        self.mixer, self.over = request.mixer, False
        # A stream of its own beside that of discrete tokens.
        stream = np.random.Generator(np.random.Philox(derive(request.seed, "soft")))
        self.uniforms = torch.from_numpy(stream.random((most, self.mixer.candidates)))
        self.steps: list[SoftStep | None] = []
        self.tail: list[int] = []

    def step(self, logits: Tensor, token: Tensor, logp: Tensor) -> tuple[Tensor, Tensor]:
        """The next step from logits [V] of what can be drawn: its heaviest token and log density; or, where soft steps are
        over, the token and log-probability that were drawn."""
        if self.over:
            self.steps.append(None)
            return token, logp
        count = min(self.mixer.candidates, len(logits))
        best, ids = logits.topk(count)
        uniforms = to_device(self.uniforms[len(self.steps), :count].to(logits.dtype), logits.device).clamp(
            min=1e-12, max=1 - 1e-7
        )
        scores = self.mixer.draw(best, to_device(uniforms, logits.device))
        order = scores.argsort(descending=True, stable=True)
        best, ids, scores = best[order], ids[order], scores[order]
        kept, weights = (each.numpy() for each in to_host(ids.to(torch.int32), scores.float()))
        self.steps.append(SoftStep(kept, weights))
        end = self.mixer.end
        self.tail = [*self.tail, int(kept[0])][-max(1, len(end)) :]
        self.over = bool(end) and tuple(self.tail) == end
        return ids[0], self.mixer.logp(best, scores.float())


class Drawing:
    """The tokens drawn so far for the requests of a session; they are kept in the processor's memory, which each step waits
    for once."""

    def __init__(self, policy: CausalLM, requests: Sequence[Request], sampling: Sampling) -> None:
        self.device = policy.device
        self.policy, self.sampling = policy, sampling
        self.requests: list[Request] = []
        self.rule = sampling.rule(policy.renderer.stop_ids)
        self.stops = torch.tensor(sorted(self.rule.stop_ids), dtype=torch.int64)
        self.uniforms = torch.empty(0, 0, dtype=torch.float64)
        self.limits, self.before, self.which, self.count = torch.empty(4, 0, dtype=torch.int64)
        self.processors: list[Processor] = []
        self.tokens = torch.empty(0, 0, dtype=torch.int64)
        dtype = torch.float64 if policy.dtype == torch.float64 else torch.float32
        self.numbers = torch.empty(4, 0, 0, dtype=dtype)
        self.finished = torch.empty(0, dtype=torch.bool)
        self.candidates: list[list[Candidates]] = []
        # Of requests whose steps are soft.
        self.soft: list[SoftDrawing | None] = []
        self.strings = StopStrings(policy.renderer, sampling.stop) if sampling.stop else None
        self.add(requests)

    def add(self, requests: Sequence[Request]) -> None:
        """Make room for further requests; their places follow."""
        self.requests += requests
        most = max([self.tokens.shape[1], *(request.max_new_tokens for request in requests)])
        more, wider = len(requests), most - self.tokens.shape[1]
        # One uniform number a token from the request's own stream: independent of what else is in the batch.
        streams = [np.random.Generator(np.random.Philox(request.seed)).random(most) for request in requests]
        # A request that is drawn already needs none beyond its own limit.
        new = torch.from_numpy(np.stack(streams)) if streams else self.uniforms.new_empty(0, most)
        self.uniforms = torch.cat([pad(self.uniforms, (0, wider)), new])
        self.tokens = pad(self.tokens, (0, wider, 0, more))
        self.numbers = pad(self.numbers, (0, wider, 0, more))
        self.finished, self.count = pad(self.finished, (0, more)), pad(self.count, (0, more))
        which = []
        for processor in (request.processor for request in requests):
            if processor is not None and processor not in self.processors:
                self.processors.append(processor)
            which.append(-1 if processor is None else self.processors.index(processor))
        limits, before = [r.max_new_tokens for r in requests], [len(r.prefix) for r in requests]
        for name, values in (("limits", limits), ("before", before), ("which", which)):
            setattr(self, name, torch.cat([getattr(self, name), torch.tensor(values, dtype=torch.int64)]))
        self.candidates += [[] for _ in requests]
        self.soft += [SoftDrawing(request, most) if request.mixer is not None else None for request in requests]
        if self.strings is not None:
            self.strings.add_requests(more)

    def step(self, logits: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
        """Draw the next token of the requests [B] `owner` from logits [B, V].

        Returns:
            tokens [B] where the logits are; [B] bool, in the processor's memory as `owner` is: that was the last.
        """
        count = self.count[owner]
        column = self.before[owner] + count
        uniforms, place = (to_device(each, self.device) for each in (self.uniforms[owner, count], column))
        factors = functools.partial(self._factors, owner) if self.processors else None
        drawn = pick(logits, uniforms, self.sampling, rule=self.rule, column=place, factors=factors)
        if any(self.soft):
            drawn = self._soften(drawn, logits, place, owner)
        numbers = torch.stack([drawn.logp, drawn.sampled_logp, drawn.entropy, drawn.policy_logp])
        token, numbers = to_host(drawn.token, numbers)
        self.tokens[owner, count] = token
        self.numbers[:, owner, count] = numbers
        self.count[owner] = count + 1
        # What is not a number ends at once (see `completion`): nothing that could follow would be of use.
        stopped = torch.isin(token, self.stops) | numbers[0].isnan()
        places = owner.tolist() if drawn.candidates is not None or self.strings is not None else []
        if drawn.candidates is not None:
            for place, candidates in zip(places, candidate_sets(drawn.candidates), strict=True):
                self.candidates[place].append(candidates)
        if self.strings is not None:
            late = (column >= self.sampling.min_new_tokens).tolist()
            ends = [self.strings.add(*each) for each in zip(places, token.tolist(), late, strict=True)]
            stopped = stopped | torch.tensor(ends)
        self.finished[owner] = stopped
        return drawn.token, stopped | (count + 1 >= self.limits[owner])

    def _soften(self, drawn: Drawn, logits: Tensor, column: Tensor, owner: Tensor) -> Drawn:
        """What was drawn, with soft steps where requests have them."""
        over = self.rule.apply(logits if logits.dtype == torch.float64 else logits.float(), column)
        over = over / (1.0 if self.sampling.greedy else self.sampling.temperature)
        if drawn.candidates is not None:
            over = over.masked_fill(~drawn.candidates, -torch.inf)
        token, logp = drawn.token.clone(), drawn.sampled_logp.clone()
        for row, place in enumerate(owner.tolist()):
            soft = self.soft[place]
            if soft is not None:
                token[row], logp[row] = soft.step(over[row], token[row], logp[row])
        raw = over.log_softmax(-1).gather(1, token[:, None])[:, 0]
        return drawn._replace(token=token, logp=raw, sampled_logp=logp, policy_logp=logp)

    def inputs(self, owner: Tensor, last: Tensor, embed: Any) -> Tensor | None:
        """[B, d] what the model reads next of requests [B] `owner` after tokens [B] `last`; None if those are all tokens."""
        if not any(self.soft):
            return None
        out: Tensor = embed(last).clone()
        for row, place in enumerate(owner.tolist()):
            soft = self.soft[place]
            if soft is not None and soft.steps and soft.steps[-1] is not None:
                out[row] = mixture_of(embed, [soft.steps[-1]], soft.mixer)[0]
        return out

    def _factors(self, owner: Tensor, entropy: Tensor) -> Tensor:
        """[B] what the processors of the requests [B] `owner` multiply the temperature by; NaN where there is none."""
        out, which = torch.full_like(entropy, torch.nan), to_device(self.which[owner], entropy.device)
        for i, processor in enumerate(self.processors):
            out = torch.where(which == i, processor.factor(entropy), out)
        return out

    def completion(self, place: int) -> Completion:
        """What was drawn for a request.

        Raises:
            Diverged: the model's logits are not finite.
        """
        length = int(self.count[place])
        logp, sampled, entropy, policy = self.numbers[:, place, :length].tolist()
        tokens = self.tokens[place, :length].tolist()
        if any(map(math.isnan, logp)):
            where = first_not_finite(self.policy.model, [*context_of(self.requests[place]), *tokens])
            raise diverged(where, "sampling")
        return Completion(
            tokens,
            logp,
            sampled,
            entropy,
            bool(self.finished[place]),
            candidates=self.candidates[place] if self.sampling.truncated else None,
            policy_logp=policy if self.processors else None,
            stop=None if self.strings is None else self.strings.found[place],
            soft=None if (soft := self.soft[place]) is None else soft.steps,
        )
