"""What the sampling and guidance axes are lent for a step: drawing, scoring, rendering."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from cohort.methods import BoundMethod
from cohort.rewards.grader import Grader
from cohort.rollouts.runner import Runner
from cohort.seeds import derive
from cohort.types import Message, Prompt, Request, Rollout
from cohort.types.access import Sampler


@dataclass
class Draws:
    """What a step's sampler is made of.

    Attributes:
        generate: see Sampler; of requests that are known to fit.
        max_new_tokens: most tokens of a rollout.
        system: system message of the run, for texts rendered while sampling.
        seed: of this round of sampling.
        unscored: rollouts without a reward that were drawn: guidance and sampling do not see them.
    """

    runner: Runner
    grader: Grader
    generate: Callable[[Sequence[Request]], list[Rollout]]
    max_new_tokens: int
    system: str | None
    seed: int
    unscored: list[Rollout] = field(default_factory=list)
    asked: int = 0

    def sampler(self, method: BoundMethod, rng: torch.Generator) -> Sampler:
        """What a method's axes are lent."""

        def draw(requests: Sequence[Request]) -> list[Rollout]:
            drawn = self.grader.grade(method.sampling(requests, sampler))
            self.unscored += [rollout for rollout in drawn if not rollout.scored]
            return [rollout for rollout in drawn if rollout.scored]

        sampler = Sampler(
            generate=lambda requests: self.generate([self._fitted(r) for r in requests]),
            draw=draw,
            grade=lambda rollouts: [rollout for rollout in self.grader.grade(rollouts) if rollout.scored],
            ask=self._ask,
            render=self._render,
            encode=self.runner.policy.renderer.encode,
            encode_completion=self.runner.policy.renderer.encode_completion,
            cut=self._cut,
            rng=rng,
            step=method.info.step,
            steps=method.info.steps,
        )
        return sampler

    def _render(self, source: str | list[Message], schemas: Sequence[Mapping[str, Any]] = ()) -> tuple[int, ...]:
        return self.runner.policy.renderer.prompt(source, self.system, schemas)[1]

    def _ask(self, sources: Sequence[str | list[Message]]) -> list[str]:
        requests = []
        for source in sources:
            context = self._render(source)
            self.asked += 1
            prompt = Prompt("asked", str(source), context, source)
            requests.append(Request(prompt, context, derive(self.seed, "ask", self.asked), self._room(context)))
        return [rollout.text for rollout in self.generate(requests)]

    def _cut(self, rollout: Rollout, count: int) -> Rollout:
        text = self.runner.text(rollout.tokens[:count], False)
        return rollout.replace(segments=rollout.head(count), status="truncated", text=text)

    def _room(self, context: Sequence[int], prefix: Sequence[int] = ()) -> int:
        """Tokens that may still be drawn after a context and a prefix."""
        limit = self.runner.policy.renderer.context_length or math.inf
        return int(max(1, min(self.max_new_tokens, limit - len(context) - len(prefix))))

    def _fitted(self, request: Request) -> Request:
        room = self._room(request.context, request.prefix)
        return request if request.max_new_tokens <= room else replace(request, max_new_tokens=room)
