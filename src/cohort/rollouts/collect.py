"""From prompts to scored rollouts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from cohort.engine.base import Engine, Measured, Sampling
from cohort.environments import EnvironmentFactory, SingleTurn
from cohort.methods import BoundMethod
from cohort.policies.conversation import History
from cohort.policies.passes import layers_of
from cohort.rewards.grader import Grader
from cohort.rollouts.batching import check_groups
from cohort.rollouts.episode import Limits
from cohort.rollouts.runner import Runner
from cohort.rollouts.sampler import StepSampler
from cohort.seeds import derive, generator
from cohort.types import Context, Prompt, Request, Rollout, grouped
from cohort.types.access import Notes
from cohort.types.policy import Policy

# How often a group that failed environments left too small is drawn again, at most.
REDRAWS = 2


@dataclass
class Collector:
    """Draws rollouts of prompts.

    Attributes:
        system: system message of the run, for texts rendered while sampling.
        entropy_tokens: see `Runner`.
        version: of the policy's weights: updates so far.
        environments: what answers the policy; None: every answer ends its episode, and the reward functions judge it.
        limits: where episodes end that do not end by themselves.
        history: see `Runner`.
        redraw: groups that failed environments leave smaller than the method compares are drawn again.
    """

    policy: Policy
    engine: Engine
    sampling: Sampling
    grader: Grader
    max_new_tokens: int
    system: str | None = None
    entropy_tokens: int = 0
    version: int = 0
    environments: EnvironmentFactory | None = None
    limits: Limits = field(default_factory=Limits)
    history: History = "auto"
    redraw: bool = False
    sampled_tokens: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"sample": 0.0, "idle": 0.0})

    @property
    def factory(self) -> EnvironmentFactory:
        """Makes the environments of episodes, and rewards these."""
        return self.environments or SingleTurn(self.grader)

    @property
    def reward_names(self) -> tuple[str, ...]:
        """Of the components of its rollouts' rewards."""
        return (*self.grader.names, *self.factory.names)

    def reward_weights(self, step: int) -> tuple[float, ...]:
        """Of the same components in the sum, after so many completed steps."""
        return tuple(self.grader.weight(name, step) for name in self.reward_names)

    @property
    def runner(self) -> Runner:
        """What runs episodes with the weights as they are."""
        given = (self.policy, self.engine, self.sampling, self.factory, self.system)
        how: dict[str, Any] = {"version": self.version, "entropy_tokens": self.entropy_tokens, "seconds": self.seconds}
        return Runner(*given, **how, limits=self.limits, history=self.history)

    def close(self) -> None:
        """End the processes of environments and reward functions, and what the engine runs."""
        if self.environments is not None:
            self.environments.close()
        self.grader.scorer.close()
        self.engine.close()

    def generate(self, requests: Sequence[Request], *, alone: bool = False) -> list[Rollout]:
        """A rollout for every request, in their order; not scored.

        Args:
            alone: no environment answers.
        """
        begin = time.perf_counter()
        runner = self.runner
        if alone:
            runner = replace(runner, environments=SingleTurn(self.grader), limits=Limits())
        rollouts = runner.run(requests)
        self.sampled_tokens += sum(drawn_tokens(part) for rollout in rollouts for part in rollout.parts)
        self.seconds["sample"] += time.perf_counter() - begin
        return rollouts

    def take_tokens(self) -> int:
        """Tokens sampled since the last call."""
        taken, self.sampled_tokens = self.sampled_tokens, 0
        return taken

    def engine_metrics(self) -> dict[str, float]:
        """What the engine reports of its work since the last call."""
        return self.engine.metrics() if isinstance(self.engine, Measured) else {}

    def states(self, contexts: Sequence[Sequence[int]], *, layer: int = -1) -> list[Tensor]:
        """The policy's hidden states [C, d] of a layer at every token of each context."""
        return layers_of(self.policy).hidden_states(contexts, layer=layer)

    def collect(
        self,
        method: BoundMethod,
        prompts: Sequence[Prompt],
        counts: Sequence[int],
        *,
        seed: int,
        first: Sequence[int] = (),
        notes: Sequence[Notes] = (),
        waiting: Sequence[Rollout] = (),
    ) -> list[Rollout]:
        """Rollouts of prompts, `counts` of each, through the method's guidance and sampling, with those without a reward;
        behind each those of the other agents of its episode.

        Args:
            first: how many rollouts each prompt got with this seed before; none by default.
            notes: for each prompt, what its requests carry as `meta`, shared out evenly in this order.
            waiting: rollouts of earlier steps that are gone on with first; guidance does not see them.
        """
        self.version = method.info.version
        requests = [
            Request(
                prompt,
                Context(prompt.tokens),
                derive(seed, prompt.id, start + k),
                self.max_new_tokens,
                meta=noted[k * len(noted) // count] if noted else {},
                environment_seed=seed,
            )
            for prompt, count, start, noted in zip(
                prompts, counts, first or [0] * len(prompts), notes or [()] * len(prompts), strict=True
            )
            for k in range(count)
        ]
        rollouts = self._draw(method, requests, seed, waiting)
        for again in range(REDRAWS if self.redraw else 0):
            small = left_small(rollouts, max(1, method.method.group_size))
            # What earlier steps drew a part of cannot be drawn again.
            small -= {rollout.prompt.id for rollout in waiting}
            if not small:
                break
            anew = derive(seed, "again", again)
            renewed = [
                replace(request, seed=derive(request.seed, "again", again), environment_seed=anew)
                for request in requests
                if request.prompt.id in small
            ]
            # What failed stays on record; what is left of its group met another environment.
            kept = [r for r in rollouts if r.prompt.id not in small or r.status == "failed"]
            rollouts = [*kept, *self._draw(method, renewed, anew)]
        parts = [part for rollout in rollouts for part in rollout.parts]
        # Those that are trained on in another context than they were drawn in have no entropies.
        return self.runner.with_entropies(parts)

    def _draw(
        self, method: BoundMethod, requests: Sequence[Request], seed: int, waiting: Sequence[Rollout] = ()
    ) -> list[Rollout]:
        """Rollouts of requests through the method's guidance and sampling, with those without a reward; first, those that were
        waiting."""
        judges = self.grader.scorer.judges
        draws = StepSampler(self.runner, self.generate, self.max_new_tokens, self.system, seed, judges=judges)
        sampler = draws.sampler(method, generator(seed, "tools"))
        going = [self._going_on(rollout) for rollout in waiting]
        if "guidance" in method.method.filled:
            rollouts = [*(sampler.draw(going) if going else []), *method.guidance(requests, sampler)]
        else:
            rollouts = sampler.draw([*going, *requests])
        requests = [*going, *requests]
        if draws.unscored:
            # In their places, where the method drew what was asked for.
            place = {request.seed: i for i, request in enumerate(requests)}
            rollouts = sorted([*rollouts, *draws.unscored], key=lambda r: place.get(r.request.seed, len(requests)))
        check_groups(rollouts, requests)
        return rollouts

    def _going_on(self, rollout: Rollout) -> Request:
        """The request for what comes behind a rollout that waits."""
        length = len(rollout.tokens)
        # With the seed of its own beginning it would meet the same noise again.
        (request,) = rollout.branches(length, [derive(rollout.request.seed, "on", length)])
        return replace(request, max_new_tokens=self.max_new_tokens - length)


def left_small(rollouts: Sequence[Rollout], least: int) -> set[str]:
    """Prompts of which failed environments left fewer than `least` rollouts with a reward."""
    return {
        group.prompt.id
        for group in grouped(rollouts)
        if any(r.status == "failed" for r in group.rollouts) and sum(r.scored for r in group.rollouts) < least
    }


def drawn_tokens(rollout: Rollout) -> int:
    """Tokens that were drawn for a rollout."""
    new = rollout.segments[len(rollout.request.history) :]
    return sum(len(segment) for segment in new if segment.writer == "policy")
