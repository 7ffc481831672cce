"""The parts of a step, put together from those of a run."""

from __future__ import annotations

from collections.abc import Callable

from cohort.rollouts.collect import Collector
from cohort.rollouts.exchange import Exchange
from cohort.rollouts.journal import Journal
from cohort.rollouts.sharing import Sharing
from cohort.rollouts.sources import Auxiliary, Mixed, Reader, Replayed, RolloutSource, Stored, Sync
from cohort.rollouts.windows import Rolling
from cohort.training.ahead import ahead_of
from cohort.training.batches import Batches
from cohort.training.build import Setup, optimizer_of
from cohort.training.clock import Clock
from cohort.training.loop import Training
from cohort.training.precision import MasterWeights
from cohort.training.progress import Progress
from cohort.training.schedule import factor
from cohort.training.trainer import LocalTrainer, Trainer
from cohort.types import StepInfo

# A run as it is set up, and its progress -> its trainer.
MakeTrainer = Callable[[Setup, Progress], Trainer]


def make_trainer(setup: Setup, progress: Progress, optimizer: MasterWeights | None = None) -> LocalTrainer:
    """The trainer of a run in one process, with the models in the roles that the method needs.

    Args:
        optimizer: that of `optimizer_of`, where it was made before.
    """
    config, optimizer = setup.config, optimizer or optimizer_of(setup)
    engine = setup.collector.engine
    return LocalTrainer(
        setup.policy,
        optimizer,
        progress,
        engine,
        config.sampling.temperature,
        setup.micro_tokens,
        config.optimisation.grad_clip,
    )


def assemble(setup: Setup, trainer: Trainer | None = None, journal: Journal | None = None) -> Training:
    """The parts of the run's steps.

    Args:
        trainer: with the run's progress; None makes one that begins.
        journal: of rollouts that are drawn ahead of training; None keeps none.
    """
    config, policy, collector = setup.config, setup.policy, setup.collector
    if trainer is None:
        states = setup.method.init(
            size=len(setup.prompts), steps=config.optimisation.steps, rows=[prompt.row for prompt in setup.prompts]
        )
        trainer = make_trainer(setup, Progress(states=states))
    progress = trainer.progress
    batches = Batches(
        policy,
        trainer,
        collector.engine,
        progress,
        setup.rows,
        config.sampling.temperature,
        collector.system,
        config.optimisation.old_logp,
        collector.grader.scorer.judges,
    )

    def planned(step: int) -> StepInfo:
        lr = config.optimisation.lr * factor(
            step + 1,
            config.optimisation.steps,
            warmup=config.optimisation.warmup,
            schedule=config.optimisation.schedule,
        )
        return StepInfo(
            step=step,
            steps=config.optimisation.steps,
            seed=config.seed,
            lr=lr,
            reward_names=setup.reward_names,
            reward_weights=setup.reward_weights(step),
            max_new_tokens=setup.longest,
            version=trainer.version,
        )

    def info(step: int) -> StepInfo:
        # Reward functions know of the step, too.
        setup.stand(step)
        return planned(step)

    source = source_of(setup, batches, planned, journal)

    def sampling() -> float:
        # Of what is drawn elsewhere, a step takes the time that it waited.
        return collector.seconds["sample"] + (setup.ahead.waited if setup.ahead is not None else 0.0)

    def clock() -> Clock:
        compiled, setup.compile_seconds = setup.compile_seconds, 0.0
        before = {"time/compile": compiled} if compiled else {}
        idle = None if collector.environments is None else lambda: collector.seconds["idle"]
        return Clock(sampling, lambda: collector.grader.seconds["reward"], before, idle)

    return Training(
        setup.method,
        source,
        trainer,
        batches,
        progress,
        info,
        clock,
        config.optimisation.updates,
        config.optimisation.epochs,
    )


def sharing_of(setup: Setup, source: RolloutSource, place: str) -> Sharing:
    """The source as one that shares its rollouts with other runs."""
    asked, sampling = setup.config.sharing, setup.config.sampling
    return Sharing(
        source,
        Exchange(place),
        setup.policy.renderer,
        setup.collector.factory.group_rewards,
        setup.prompts,
        asked.share_groups,
        sampling.group_size,
        sampling.max_new_tokens,
        asked.share_local,
        asked.share_rule,
        asked.share_unknown,
        setup.collector.system,
    )


def source_of(
    setup: Setup, batches: Batches, info: Callable[[int], StepInfo], journal: Journal | None = None
) -> RolloutSource:
    """The source of the run's rollouts.

    Args:
        info: steps completed -> `StepInfo` of the next step.
        journal: see `assemble`.
    """
    config = setup.config
    how = (config.sampling.prompts_per_step, config.sampling.group_size)
    if setup.offline is not None:
        return Stored(setup.method, setup.offline, setup.prompts, batches, *how)

    def sampled(collector: Collector, reader: Reader) -> Sync:
        return (Rolling if setup.method.waits else Sync)(setup.method, collector, setup.prompts, reader, *how)

    source: RolloutSource
    if config.inference.ahead:
        source = setup.ahead = ahead_of(setup, batches, sampled, info, journal)
    else:
        source = sampled(setup.collector, batches)
    if config.optimisation.replay_groups:
        prompts = {prompt.id: prompt for prompt in setup.prompts}
        source = Replayed(source, config.optimisation.replay_groups, config.optimisation.replay_size, prompts)
    if config.sharing.share_folder is not None:
        source = sharing_of(setup, source, config.sharing.share_folder)
    if setup.pairs is not None:
        source = Mixed([source, Auxiliary(setup.pairs, config.sampling.prompts_per_step)])
    return source
