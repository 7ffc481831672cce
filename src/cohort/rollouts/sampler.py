"""The sampler of a step, for the axes sampling and guidance: drawing, scoring, rendering."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import torch

from cohort.methods import BoundMethod
from cohort.policies.passes import layers_of
from cohort.rewards.judge import ask
from cohort.rewards.judges.judges import Judges
from cohort.rollouts.runner import Runner
from cohort.seeds import derive
from cohort.types import Context, Message, Prompt, Request, Rollout
from cohort.types.access import Sampler
from cohort.types.rollout import over_parts


class Generate(Protocol):
    """Rollouts of requests that are known to fit, in their order and not scored; `alone` without their environments."""

    def __call__(self, requests: Sequence[Request], *, alone: bool = False) -> list[Rollout]: ...


@dataclass
class StepSampler:
    """Makes the sampler of one round of sampling.

    Attributes:
        max_new_tokens: most tokens of a rollout.
        system: system message of the run, for texts rendered while sampling.
        seed: of this round of sampling.
        unscored: rollouts without a reward that were drawn: guidance and sampling do not see them.
        judges: whom a method's PROMPT@MODEL asks.
    """

    runner: Runner
    generate: Generate
    max_new_tokens: int
    system: str | None
    seed: int
    unscored: list[Rollout] = field(default_factory=list)
    asked: int = 0
    judges: Judges | None = None

    def sampler(self, method: BoundMethod, rng: torch.Generator) -> Sampler:
        """The sampler that a method's axes draw with."""

        def generate(requests: Sequence[Request]) -> list[Rollout]:
            return self.generate([self._fitted(request) for request in requests])

        def extend(
            rollout: Rollout | Sequence[Rollout],
            at: int | Sequence[int],
            n: int = 1,
            *,
            insert: tuple[int, ...] = (),
            seeds: Sequence[int] | None = None,
        ) -> list[Rollout]:
            rollouts = [rollout] if isinstance(rollout, Rollout) else list(rollout)
            places = [at] if isinstance(at, int) else list(at)
            asked: list[Request] = []
            for i, (each, place) in enumerate(zip(rollouts, places, strict=True)):
                own = child_seeds(each, place, n) if seeds is None else seeds[i * n : (i + 1) * n]
                asked += each.branches(place, own, insert=insert)
            return generate(asked)

        def grade(rollouts: Sequence[Rollout]) -> list[Rollout]:
            graded = zip(rollouts, self._scored(rollouts), strict=True)
            # What is drawn at the end is graded then, too, and by functions that may read its environment.
            return [each.replace(environment=own.environment) for own, each in graded if each.scored]

        def draw(requests: Sequence[Request]) -> list[Rollout]:
            drawn = self._scored(method.sampling(requests, sampler))
            self.unscored += [rollout for rollout in drawn if not rollout.scored]
            return [rollout for rollout in drawn if rollout.scored]

        sampler = Sampler(
            generate=generate,
            extend=extend,
            draw=draw,
            grade=grade,
            ask=self._ask,
            render=self._render,
            encode=self.runner.policy.renderer.encode,
            encode_completion=self.runner.policy.renderer.encode_completion,
            stop_ids=frozenset(self.runner.policy.renderer.stop_ids),
            cut=self.runner.cut,
            states=lambda contexts, **how: layers_of(self.runner.policy).hidden_states(contexts, **how),
            judge=partial(ask, judges=self.judges),
            rng=rng,
            step=method.info.step,
            steps=method.info.steps,
            context_length=self.runner.policy.renderer.context_length,
        )
        return sampler

    def _scored(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """Rollouts with their rewards; those that go on in a later step have none yet."""
        over = iter(over_parts(self.runner.environments.group_rewards, [r for r in rollouts if not r.waits]))
        return [r.replace(reward=0.0, accuracy=math.nan) if r.waits else next(over) for r in rollouts]

    def _render(self, source: str | list[Message], schemas: Sequence[Mapping[str, Any]] = ()) -> tuple[int, ...]:
        return self.runner.policy.renderer.prompt(source, self.system, schemas)[1]

    def _ask(self, sources: Sequence[str | list[Message]]) -> list[str]:
        requests = []
        for source in sources:
            context = self._render(source)
            self.asked += 1
            prompt = Prompt("asked", str(source), context, source)
            requests.append(
                Request(prompt, Context(context), derive(self.seed, "ask", self.asked), self._room(context))
            )
        return [rollout.text for rollout in self.generate(requests, alone=True)]

    def _room(self, context: Sequence[int]) -> int:
        """Tokens that may still be drawn after a context."""
        limit = self.runner.policy.renderer.context_length or math.inf
        return int(max(1, min(self.max_new_tokens, limit - len(context))))

    def _fitted(self, request: Request) -> Request:
        room = self._room(request.context.before(request.prefix))
        return request if request.max_new_tokens <= room else replace(request, max_new_tokens=room)


def child_seeds(rollout: Rollout, at: int, n: int) -> list[int]:
    """Seeds of n rollouts that go on from a place in another one."""
    own = rollout.request.seed
    if rollout.request.parent is None:
        return [own + 1 + at * n + k for k in range(n)]
    # Children of a child have seeds by name: sums would meet those of its siblings' children.
    return [derive(own, "child", at, n, k) for k in range(n)]
