"""Steps of the loop, and parts of them, for a run that was set up."""

from __future__ import annotations

from cohort.methods import BoundMethod
from cohort.training.assembly import assemble, make_trainer
from cohort.training.build import Setup
from cohort.training.loop import Training
from cohort.training.precision import MasterWeights
from cohort.training.progress import Progress
from cohort.types import Rollout


def run_of(setup: Setup, optimizer: MasterWeights | None = None, progress: Progress | None = None) -> Training:
    """What the run's steps are made with."""
    if progress is None:
        progress = Progress(states=setup.method.init(size=len(setup.prompts)))
    return assemble(setup, make_trainer(setup, progress, optimizer))


def sample(run: Training) -> tuple[list[Rollout], list[Rollout], BoundMethod]:
    """All rollouts of the next step, those to train on, and the method as it goes on."""
    info = run.info(run.progress.step)
    drawn = run.source.next(info, run.progress.states)
    return drawn.rollouts, drawn.chosen, run.method.bind(drawn.states, info)
