"""Sampling ahead of training in one process: the thread draws with a copy of the policy, and counts by itself."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cohort.engine.detached import Detached
from cohort.policies.agents import members_of
from cohort.policies.causal_lm import CausalLM
from cohort.policies.passes import log_probs
from cohort.policies.replica import weights_of
from cohort.rewards.calling import TrainerState
from cohort.rollouts.ahead import Ahead, Order
from cohort.rollouts.collect import Collector
from cohort.rollouts.journal import Journal, Ready
from cohort.rollouts.sources import Drawn, Reader, RolloutSource
from cohort.training.batches import Batches
from cohort.training.build import Setup
from cohort.types import Rollout, StepInfo, grouped
from cohort.types.policy import Actions, Policy

# Rollouts of a step by which engine and trainer are compared.
COMPARED = 8


@dataclass
class CopyScorer:
    """Scores with a copy of the policy; see `cohort.training.trainer.Scorer`."""

    policy: Policy
    temperature: float
    micro_tokens: int
    version: int = 0

    def log_probs(
        self,
        actions: Actions,
        want: frozenset[str] = frozenset({"logp"}),
        *,
        width: int,
        role: str = "policy",
        temperature: float | None = None,
    ) -> dict[str, Tensor]:
        """See Scorer."""
        how: dict[str, Any] = {"width": width, "micro_tokens": self.micro_tokens, "want": want, "role": role}
        return log_probs(
            self.policy, actions, temperature=self.temperature if temperature is None else temperature, **how
        )


@dataclass
class CopyDrawer:
    """See `cohort.rollouts.ahead.Drawer`: draws with a copy of the policy, whose engine, rewards and counts are its own.

    Attributes:
        setup: the run's, whose policy is trained and whose grader takes what the rewards report.
        engine: draws with the copy.
        scorer: of the copy.
        collector: draws, and counts for this thread.
    """

    setup: Setup
    engine: Detached
    scorer: CopyScorer
    collector: Collector
    source: RolloutSource

    @property
    def stopped(self) -> threading.Event:
        """See Drawer."""
        return self.engine.stopped

    def weights(self) -> list[Tensor]:
        """See Drawer."""
        return weights_of(self.setup.policy)

    @contextmanager
    def resting(self) -> Iterator[None]:
        """See Drawer."""
        with self.engine.drawing:
            self.engine.take_over(self.engine.version, self.weights())
            yield

    def draw(self, order: Order) -> tuple[Drawn, dict[str, Any]]:
        """See Drawer."""
        with self.engine.drawing:
            self.engine.take_over(order.info.version, order.weights)
            if self.engine.newer is not None and (newer := self.engine.newer()) is not None:
                self.engine.take_over(*newer)
                order = replace(order, info=replace(order.info, version=newer[0]))
            return self._draw(order)

    def _draw(self, order: Order) -> tuple[Drawn, dict[str, Any]]:
        self.scorer.version = order.info.version
        collector, grader = self.collector, self.collector.grader
        self.setup.stand(order.info.step, grader.state)
        collector.seconds.update(sample=0.0, idle=0.0)
        grader.seconds.update(reward=0.0)
        drawn = self.source.next(order.info, order.states)
        self.source.release(drawn.chosen)
        times = {"time/sample": collector.seconds["sample"], "time/reward": grader.seconds["reward"]}
        if collector.environments is not None:
            times["time/idle"] = collector.seconds["idle"]
        # They may have gone on with newer weights.
        self.scorer.version = self.engine.version
        aside = {
            "version": self.engine.version,
            "metrics": dict(grader.metrics),
            "failures": list(grader.failures),
            "logp": self._scores(self.scorer.policy, _compared(drawn, self.engine.version)),
        }
        grader.metrics.clear()
        grader.failures.clear()
        return replace(drawn, metrics={**drawn.metrics, **times}), aside

    def use(self, ready: Ready, version: int) -> Drawn:
        """See Drawer; engine and trainer are compared by some of the rollouts, with the weights that drew them and with those
        of now."""
        drawn, aside, grader = ready.drawn, ready.aside, self.setup.collector.grader
        grader.failures.extend(aside["failures"])
        for name, values in aside["metrics"].items():
            grader.metrics.setdefault(name, []).extend(values)
        rollouts = _compared(drawn, aside["version"])
        if not rollouts or aside["version"] == version:
            return drawn
        known, then = _of_policy(rollouts), aside["logp"]
        now = self._scores(self.setup.policy, rollouts)
        sampler = torch.full_like(then, torch.nan)
        for i, rollout in enumerate(rollouts):
            sampler[i, : len(rollout.tokens)] = torch.tensor(rollout.sampler_logp, dtype=then.dtype)
        engine, stale = (then - sampler).abs()[known & ~sampler.isnan()], (now - then).abs()[known]
        if not engine.numel():
            return drawn
        mismatch = (float(engine.mean()), float(engine.max()))
        metrics = {"mismatch/engine": mismatch[0], "mismatch/staleness": float(stale.mean())}
        return replace(drawn, metrics={**drawn.metrics, **metrics}, mismatch=mismatch)

    def _scores(self, policy: Policy, rollouts: Sequence[Rollout]) -> Tensor:
        """Log-probabilities [n, T] that a policy gives to rollouts' tokens."""
        if not rollouts:
            return torch.zeros(0, 0)
        scorer = replace(self.scorer, policy=policy)
        width = max(len(rollout.tokens) for rollout in rollouts) or 1
        return scorer.log_probs(policy.actions(rollouts), width=width)["logp"].cpu()


def _compared(drawn: Drawn, version: int) -> list[Rollout]:
    """Some of the rollouts that are trained on and that weights of this version drew alone: of one group, which shares its
    prompt."""
    groups = grouped(rollout for rollout in drawn.chosen if _drew(version, rollout))
    return list(groups[0].rollouts[:COMPARED]) if groups else []


def _drew(version: int, rollout: Rollout) -> bool:
    own = [segment.version for segment in rollout.segments if segment.writer == "policy" and len(segment)]
    return bool(own) and all(each == version for each in own)


def _of_policy(rollouts: Sequence[Rollout]) -> Tensor:
    """[n, T] bool: the policy chose the token."""
    width = max(len(rollout.tokens) for rollout in rollouts) or 1
    return torch.tensor([[*rollout.mask, *[0] * (width - len(rollout.mask))] for rollout in rollouts]).bool()


def ahead_of(
    setup: Setup,
    batches: Batches,
    source: Callable[[Collector, Reader], RolloutSource],
    info: Callable[[int], StepInfo],
    journal: Journal | None,
) -> Ahead:
    """The source that draws ahead.

    Args:
        batches: of the run.
        source: what draws a step's rollouts, with a collector and a reader.
        info: steps completed -> `StepInfo` of the next step.
    """
    config, run = setup.config, setup.collector
    policy, engine = run.policy, run.engine
    assert isinstance(engine, Detached)
    trained, copies = members_of(setup.policy), members_of(policy)
    for agent, member in trained.items():
        copied = copies[agent]
        assert isinstance(member, CausalLM)
        assert isinstance(copied, CausalLM)
        # Those that move would do so while the copy asks them.
        still = {role for role, rule in member.roles.rules.items() if not (rule.every or rule.trained)} - {"policy"}
        copied.roles.models |= {role: model for role, model in member.roles.models.items() if role in still}
        copied.roles.rules |= {role: member.roles.rules[role] for role in still}
    grader = replace(run.grader, failures=[], metrics={}, state=TrainerState(), seconds={"reward": 0.0})
    environments = copy.copy(run.environments)
    if environments is not None:
        environments.grader = grader
    seconds = {"sample": 0.0, "idle": 0.0}
    collector = replace(run, grader=grader, environments=environments, sampled_tokens=0, seconds=seconds)
    scorer = CopyScorer(policy, config.sampling.temperature, setup.micro_tokens)
    reader = replace(batches, policy=policy, trainer=scorer)
    drawer = CopyDrawer(setup, engine, scorer, collector, source(collector, reader))
    ahead = Ahead(
        drawer,
        config.inference.ahead,
        info,
        config.optimisation.steps,
        config.sampling.prompts_per_step,
        {prompt.id: prompt for prompt in setup.prompts},
        journal,
    )

    def newer() -> tuple[int, Sequence[Tensor]] | None:
        order = ahead.newest()
        known = order is None or order.info.version <= engine.version
        return None if order is None or known else (order.info.version, order.weights)

    if config.inference.in_flight != "finish":
        engine.newer, engine.partial = newer, config.inference.in_flight == "partial"
    return ahead
