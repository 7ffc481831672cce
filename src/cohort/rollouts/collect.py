"""From prompts to scored rollouts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from cohort.engine.base import Engine, Sampling
from cohort.methods import BoundMethod
from cohort.rewards.grader import Grader
from cohort.rollouts.batching import check_groups
from cohort.rollouts.runner import Runner
from cohort.rollouts.sampler import Draws
from cohort.seeds import derive, generator
from cohort.types import Prompt, Request, Rollout
from cohort.types.policy import Policy


@dataclass
class Collector:
    """Draws rollouts of prompts.

    Attributes:
        system: system message of the run, for texts rendered while sampling.
        entropy_tokens: see `Runner`.
        version: of the policy's weights: updates so far.
    """

    policy: Policy
    engine: Engine
    sampling: Sampling
    grader: Grader
    max_new_tokens: int
    system: str | None = None
    entropy_tokens: int = 0
    version: int = 0
    sampled_tokens: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"sample": 0.0})

    @property
    def runner(self) -> Runner:
        """What runs episodes with the weights as they are."""
        return Runner(self.policy, self.engine, self.sampling, self.version, self.entropy_tokens)

    def close(self) -> None:
        """End what runs beside the trainer: the reward functions' process, and what the engine has."""
        self.grader.scorer.close()
        self.engine.close()

    def generate(self, requests: Sequence[Request]) -> list[Rollout]:
        """A rollout for every request, in their order; not scored."""
        begin = time.perf_counter()
        rollouts = self.runner.run(requests)
        self.sampled_tokens += sum(len(rollout.tokens) - len(rollout.request.prefix) for rollout in rollouts)
        self.seconds["sample"] += time.perf_counter() - begin
        return rollouts

    def take_tokens(self) -> int:
        """Tokens sampled since the last call."""
        taken, self.sampled_tokens = self.sampled_tokens, 0
        return taken

    def collect(
        self, method: BoundMethod, prompts: Sequence[Prompt], counts: Sequence[int], *, seed: int
    ) -> list[Rollout]:
        """Rollouts of prompts, `counts` of each, through the method's guidance and sampling, with those without a reward."""
        self.version = method.info.version
        requests = [
            Request(prompt, prompt.tokens, derive(seed, prompt.id, k), self.max_new_tokens)
            for prompt, count in zip(prompts, counts, strict=True)
            for k in range(count)
        ]
        draws = Draws(self.runner, self.grader, self.generate, self.max_new_tokens, self.system, seed)
        sampler = draws.sampler(method, generator(seed, "tools"))
        rollouts = method.guidance(requests, sampler)
        if draws.unscored:
            # In their places, where the method drew what was asked for.
            place = {request.seed: i for i, request in enumerate(requests)}
            rollouts = sorted([*rollouts, *draws.unscored], key=lambda r: place.get(r.request.seed, len(requests)))
        check_groups(rollouts, requests)
        return rollouts
