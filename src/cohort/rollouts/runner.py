"""Runs episodes: has them drawn, and makes rollouts of what was drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cohort.engine.base import Completion, Engine, Sampling
from cohort.engine.stopping import first_stop
from cohort.policies.passes import log_probs
from cohort.types import Request, Rollout, Segment, Status
from cohort.types.policy import Policy
from cohort.types.support import Candidates, Support


@dataclass(frozen=True)
class Runner:
    """Runs one episode for every request.

    Attributes:
        version: of the policy's weights: updates so far.
        entropy_tokens: most padded tokens in a pass for entropies that are read but which the engine does not report;
            0 if nobody reads them.
    """

    policy: Policy
    engine: Engine
    sampling: Sampling
    version: int = 0
    entropy_tokens: int = 0

    def run(self, requests: Sequence[Request]) -> list[Rollout]:
        """A rollout for every request, in their order; not scored."""
        done: list[Rollout | None] = [None] * len(requests)
        for place, completion in self.engine.generate(requests, self.sampling):
            done[place] = self._rollout(requests[place], completion)
        rollouts = [rollout for rollout in done if rollout is not None]
        return self._with_entropies(rollouts) if self.entropy_tokens and not self.sampling.greedy else rollouts

    def text(self, tokens: Sequence[int], finished: bool, stop: str | None = None) -> str:
        """The text of a rollout's tokens, without the stop token that ends it, or the stop string and what follows it."""
        before = self.policy.renderer.decode(tokens[:-1]) if finished else ""
        if stop is None:
            return before if finished else self.policy.renderer.decode(tokens)
        # The token that completes a stop string can begin before it.
        text = self.policy.renderer.decode(tokens)
        found = first_stop(text, before, (stop,))
        return text[: found[0]] if found else text

    def _rollout(self, request: Request, completion: Completion) -> Rollout:
        logp = completion.sampled_logp if completion.policy_logp is None else completion.policy_logp
        rule = self.sampling.rule(self.policy.renderer.stop_ids)
        sets: list[Candidates | None] | None = None if completion.candidates is None else [*completion.candidates]
        drawn = Segment(
            tuple(completion.tokens),
            logp=tuple(logp),
            entropy=tuple(completion.entropy),
            support=None if rule.free and sets is None else Support(rule, sets),
            version=self.version,
        )
        text = self.text([*request.prefix, *drawn.actions], completion.finished, completion.stop)
        status: Status = "finished" if completion.finished else "truncated"
        return Rollout(request, (*request.history, drawn), status, text, name_of(request))

    def _with_entropies(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """Rollouts with the entropies that the engine did not report, from a pass of the policy."""
        out = list(rollouts)
        open_ = [i for i, rollout in enumerate(out) if any(map(math.isnan, rollout.sampler_entropy))]
        if open_:
            entropies = log_probs(
                self.policy,
                self.policy.actions([out[i] for i in open_]),
                width=max(len(out[i].tokens) for i in open_),
                temperature=self.sampling.temperature,
                micro_tokens=self.entropy_tokens,
                want=frozenset({"entropy"}),
            )["entropy"].tolist()
            for i, row in zip(open_, entropies, strict=True):
                out[i] = with_entropies(out[i], row)
        return out


def name_of(request: Request) -> str:
    """The id of a request's rollout: no two requests of a run have the same seed."""
    return f"{request.seed:016x}"


def with_entropies(rollout: Rollout, values: Sequence[float]) -> Rollout:
    """The rollout with entropies (one a token, or more) where those of the policy's tokens are not known."""
    segments, at = [], 0
    for segment in rollout.segments:
        found = zip(segment.numbers(segment.entropy), values[at : at + len(segment)], strict=True)
        at += len(segment)
        segments.append(replace(segment, entropy=tuple(new if math.isnan(own) else own for own, new in found)))
    return rollout.replace(segments=tuple(segments))
