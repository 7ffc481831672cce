"""The training step. `one_step` reads like the algorithm box of the GRPO paper; no method has a name here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from cohort.methods import Method
from cohort.rollouts.sources import RolloutSource
from cohort.seeds import generator
from cohort.training.batches import Batches
from cohort.training.clock import Clock
from cohort.training.merging import minibatches, replay_actions, with_replays, write_fields
from cohort.training.outcome import Outcome, StepResult
from cohort.training.progress import Progress
from cohort.training.trainer import Trainer
from cohort.types import StepInfo


@dataclass
class Training:
    """The parts that a step is made with.

    Attributes:
        source: gives the rollouts of each step, with their rewards.
        trainer: holds the weights and updates them.
        batches: makes the batch that the method reads of rollouts.
        progress: steps completed, the method's states, and counts.
        info: number of steps completed -> `StepInfo` of the next step.
        clock: makes the clock of a step.
        updates, epochs: minibatches that a step's rollouts are cut into, and passes over them.
    """

    method: Method
    source: RolloutSource
    trainer: Trainer
    batches: Batches
    progress: Progress
    info: Callable[[int], StepInfo]
    clock: Callable[[], Clock]
    updates: int = 1
    epochs: int = 1


def one_step(run: Training) -> StepResult:
    """Sample, score, take advantages, update; `progress` moves on by one step at the very end."""
    trainer, batches, progress = run.trainer, run.batches, run.progress
    info, clock = run.info(progress.step), run.clock()

    # for each prompt of the batch, sample G rollouts from the current policy, and reward them
    drawn = run.source.next(info, progress.states)
    method = run.method.bind(drawn.states, info)
    scored = drawn.scored_batch if drawn.scored_batch is not None else batches.scored(method, drawn.scored)
    method = method.with_states(method.on_rollouts(scored, drawn.scored))

    # advantages, in the groups that carry a signal
    everything, everyone = batches.with_replayed(method, scored, drawn.scored, drawn.replayed)
    batch, compared = batches.comparable(method, everything, everyone, drawn.chosen)
    prepared = method.prepare(batches.complete(method, batch, compared))
    batch, rollouts = prepared.batch, [compared[row] for row in prepared.trained.tolist()]
    outcome = Outcome.of(batches, method, drawn, scored, compared, prepared)
    clock.mark("score")

    # maximise the objective
    trainer.begin(info.lr)
    replays = [*method.replay(), *batches.auxiliary_replays(method, batch, drawn.auxiliary)]
    on_policy = run.updates * run.epochs == 1 and not replays and batches.old_logp != "sampler"
    batch = batch if on_policy else batches.with_old_logp(batch, rollouts)
    for replay in replays:
        if replay.before:
            old = replay.batch.to(batch.device)
            trainer.update(method, old, replay_actions(batches.policy, replay), on_policy=False)
    whole, actions = with_replays(batches.policy, batch, rollouts, [replay for replay in replays if not replay.before])
    for epoch in range(run.epochs if whole.size else 0):
        for rows in minibatches(whole, run.updates, generator(info.seed, info.step + 1, epoch)):
            done = trainer.update(method, whole.select(rows), actions.select(rows), on_policy=on_policy)
            whole = write_fields(whole, rows, done.fields)
            outcome.compare(done, batch, rows)
    trainer.trust(outcome.mismatch)
    trainer.publish()
    batch = whole.select(torch.arange(batch.size, device=batch.device)) if whole.size else batch
    states = method.on_step_end(batch, rollouts, batches.access(rollouts, info)) if rollouts else dict(method.states)
    run.source.release(rollouts)
    clock.mark("update")

    progress.step, progress.states = info.step + 1, states
    return outcome.result(progress, trainer, batch, rollouts, clock)
