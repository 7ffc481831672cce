"""Asking a model outside a run: what it answers to messages, with nothing that judges it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from cohort.methods import Method
from cohort.policies.agents import AgentPolicies
from cohort.policies.causal_lm import CausalLM
from cohort.rewards.grader import Grader
from cohort.rewards.scorer import Scorer
from cohort.rollouts.sampler import StepSampler
from cohort.seeds import derive, generator
from cohort.training.build import make_collector
from cohort.training.config import TrainConfig
from cohort.types import Message

Ask = Callable[[Sequence[str | list[Message]]], list[str]]


@contextmanager
def asking(
    config: TrainConfig, policy: CausalLM | AgentPolicies, what: str, *, log: Callable[[str], None] = lambda _: None
) -> Iterator[Ask]:
    """Texts or messages -> what the policy answers, sampled as the configuration says; calls with the same texts differ.

    Args:
        what: it is asked for, so that different uses of a seed draw differently.
    """
    grader = Grader(Scorer([]), "", config.rewards.correct_at, config.sampling.max_new_tokens)
    collector = make_collector(config, policy, grader, log=log)
    try:
        seed = derive(config.seed, what)
        limits = (config.sampling.max_new_tokens, config.dataset.system)
        drawing = StepSampler(collector.runner, collector.generate, *limits, seed)
        yield drawing.sampler(Method().bind(), generator(seed, "ask")).ask
    finally:
        collector.close()
