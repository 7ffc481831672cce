"""A run from start to end: set-up, steps, checkpoints, evaluation, what stays on disk."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch

from cohort.analysis.store import open_run
from cohort.errors import Diverged, StorageError, UsageError
from cohort.files import save_into, write_atomically
from cohort.methods import Method
from cohort.policies.given import GivenModel
from cohort.rewards.judge import LIMIT
from cohort.rollouts.journal import JOURNAL, Journal
from cohort.training.assembly import MakeTrainer, assemble, make_trainer
from cohort.training.build import Setup, prepare
from cohort.training.card import card
from cohort.training.checks import check_space
from cohort.training.config import TrainConfig
from cohort.training.continuing import check_same_inputs, check_same_run, fitting_states, keep_configuration
from cohort.training.defaults import with_defaults
from cohort.training.display import Display, step_values, warm_start
from cohort.training.evaluate import Evaluation, evaluate_prompts, greedy
from cohort.training.folder import (
    CONFIG,
    METRICS,
    SPENT,
    SUMMARY,
    Claim,
    check_free,
    choose_folder,
    find_checkpoint,
    forget,
    occupy,
    rescue,
    set_aside,
    storing,
)
from cohort.training.inputs import inputs_of
from cohort.training.interrupt import Interrupt
from cohort.training.loop import one_step
from cohort.training.lost import LostSteps
from cohort.training.memory import peak, reset_peak
from cohort.training.models import agent_models
from cohort.training.observer import MakeObserver, Observer
from cohort.training.opening import log_text
from cohort.training.outcome import StepResult
from cohort.training.progress import Progress, finished
from cohort.training.recorder import Recorder, require_wandb
from cohort.training.result import Result, read_evaluation, summary_of
from cohort.training.saving import Saving, tell_saved
from cohort.training.state import Undo, capture, read, restore
from cohort.training.trace import unheard_agents

NONFINITE_LIMIT = 3


def train(
    config: TrainConfig,
    *,
    method: Method | None = None,
    resume: bool = False,
    accept_changes: bool = False,
    display: Display | None = None,
    given: GivenModel | None = None,
    observers: Sequence[MakeObserver] = (),
    make: MakeTrainer = make_trainer,
    opened: Callable[[Path], None] = lambda _: None,
) -> Result:
    """Run a training run.

    Args:
        method, given: the method and the model, where they are not what the configuration says but were made in Python.
        resume: continue from the newest whole checkpoint of the run's folder; start afresh where there is none.
        accept_changes: continue also with other data, reward functions, initial weights or settings than before.
        observers: make those who see each step's metrics and may say something, such as the doctor's watch.
        make: makes the trainer of the run, as it is set up, and of its progress.
        opened: is told the run's folder as soon as that is known.

    Raises:
        UsageError: what was asked cannot be done; nothing was written.
        RewardError: a reward function failed and on_reward_error is "stop".
        EngineError: a vLLM that rollouts are drawn with failed.
        StorageError: the run's folder cannot be written any more.
        EnvironmentsFailed: all episodes of three steps in a row failed.
        Diverged: loss or gradient was not finite three times in a row, or the model's logits are not.
        KeyboardInterrupt: a second signal (SIGINT, SIGTERM) ended the run at once.

    Whatever ends a run early, the last whole step is saved; a note on the error says where. A first signal (SIGHUP too)
    ends the run after its step.
    """
    display = display or Display()
    if accept_changes and not resume:
        raise UsageError("--accept-changes goes with --resume: a new run has nothing to differ from")
    torch.manual_seed(config.seed)
    folder = choose_folder(config, resume)
    there = check_free(folder, resume)
    with ExitStack() as stack:
        # A run that is written is refused before a model is loaded; a new one has no folder until all was checked.
        claim = Claim(folder) if there else None
        if claim is not None:
            stack.callback(claim.release)
        found = find_checkpoint(folder, display.log) if there else None
        state: dict[str, Any] = {} if found is None else read(found)
        changed = []
        if found is not None:
            changed = check_same_run(folder, with_defaults(config), accept=accept_changes)
        setup = prepare(config, method=method, log=display.log, report=warm_start(display), given=given)
        stack.callback(setup.close)
        check_space(folder, setup.policy, setup.config)
        inputs = inputs_of(setup)
        if found is not None:
            if "inputs" not in state:
                display.log(f"{found} holds no checksums: data, rewards and model are taken to be those of before")
            changed += check_same_inputs(folder, state.get("inputs"), inputs, accept=accept_changes)
        drawn = setup.offline is None or bool(setup.eval_prompts)
        log_text(setup.policy.renderer, setup.prompts, display.log, sampled=drawn)
        if config.output.wandb:
            require_wandb()
        if claim is None:
            folder, claim = occupy(folder, numbered=config.out is None)
            stack.callback(claim.release)
        if resume and found is None:
            display.log(f"{folder} holds no checkpoint to continue from: the run begins at step 1")
        opened(folder)
        return _Run(setup, claim, display, inputs, observers, make).run(found, state, changed)


class _Run:
    """A run that goes on in a folder which is claimed for it."""

    def __init__(
        self,
        setup: Setup,
        claim: Claim,
        display: Display,
        inputs: dict[str, Any],
        observers: Sequence[MakeObserver],
        make: MakeTrainer,
    ) -> None:
        self.setup, self.claim, self.display, self.inputs, self.observers = setup, claim, display, inputs, observers
        self.config, self.folder = setup.config, claim.folder
        self.began = self.clock = self.saved_at = time.monotonic()
        reset_peak(setup.policy.device)
        rows = [prompt.row for prompt in setup.prompts]
        states = setup.method.init(size=len(rows), steps=self.config.optimisation.steps, rows=rows)
        self.progress = Progress(states=states)
        self.training = assemble(setup, make(setup, self.progress), Journal(self.folder / JOURNAL))
        self.extra: dict[str, Any] = {"before": None, "best": None, "seconds": 0.0}
        self.interrupt = Interrupt(display.log, hung_up=display.hush)
        self.saving = Saving(self.interrupt, self.config.checkpoint.keep)
        setup.stand(0)
        LIMIT.set(self.config.rewards.reward_timeout)

    def run(self, found: Path | None, state: dict[str, Any], changed: Sequence[str]) -> Result:
        """Go on from a checkpoint with its state, or from the beginning, to the end.

        Args:
            changed: what differs from before, and is accepted.
        """
        try:
            self.training.trainer.reaches(self.folder)
        except UsageError:
            if self.claim.made:
                forget(self.claim)
            raise
        if found is None:
            self._begin()
        else:
            self._take_over(found, state, changed)
        self.setup.collector.grader.scorer.judges.ledger.keep(self.folder / SPENT)
        self.undo = Undo(self.training)
        with storing(self.folder):
            self.recorder = self._recorder()
        try:
            with self.interrupt.watching():
                return self._go_on()
        except UsageError as error:
            # What only the first rewards could show, such as graded rewards for a method of right and wrong.
            if self.progress.step == 0:
                self.recorder.close()
                forget(self.claim)
            else:
                self._rescue(error)
            raise
        except BaseException as error:
            self._rescue(error)
            raise
        finally:
            self.setup.stop()
            self.display.end()
            with suppress(Exception):
                # Of a step that was not finished.
                if self.folder.is_dir():
                    self._keep_printed(f"step {self.progress.step + 1}")
                self.recorder.close()

    def _begin(self) -> None:
        with storing(self.folder):
            left = set_aside(self.folder)
            self._write_configuration()
        if left is not None:
            self.display.log(f"what an earlier attempt left there is kept in {left}")

    def _write_configuration(self) -> None:
        self.config.model_copy(update={"out": str(self.folder)}).save(self.folder / CONFIG)

    def _take_over(self, found: Path, state: dict[str, Any], changed: Sequence[str]) -> None:
        folder, progress, log = self.folder, self.progress, self.display.log
        fresh = progress.states
        if changed and state.get("source"):
            # Rollouts that are kept were rewarded, or drawn, by what has changed.
            log("what the run kept to replay or to go on with is left out: it is of before the change")
            state["source"] = {}
        self.extra = restore(found, state, self.training)
        self.setup.stand(progress.step)
        log(f"continuing {folder} after step {progress.step}")
        for what in changed:
            log(f"  changed: {what}")
        progress.states = fitting_states(self.setup, progress.states, fresh, state.get("inputs"), self.inputs, log)
        with storing(folder):
            if changed:
                keep_configuration(folder, self.config, progress.step)
            else:
                # It may go on for more steps than were asked for before.
                self._write_configuration()
            # It says that the run is over; a new one will.
            (folder / SUMMARY).unlink(missing_ok=True)
        state.clear()  # twice the moments of the optimizer, for as long as the run goes on

    def _recorder(self) -> Recorder:
        return Recorder(
            self.folder,
            self.config,
            start=self.progress.step,
            method=self.setup.method,
            pieces=self.setup.policy.renderer.pieces,
            log=self.display.log,
        )

    def _go_on(self) -> Result:
        config, progress, display, extra = self.config, self.progress, self.display, self.extra
        earlier = open_run(self.folder).metrics if self.observers else []
        observers = [make(self.folder.name, config.plain(), earlier) for make in self.observers]
        saved = progress.step if progress.step else None
        lost = LostSteps()
        if self.setup.eval_prompts and extra["before"] is None:
            extra["before"] = _evaluate(self.setup, display, "before").to_dict()
        display.begin("training", config.optimisation.steps, progress.step)
        while not finished(config, progress) and not self.interrupt.asked:
            self.undo.begin()
            lost.see(self._step(observers), progress.step)
            if progress.in_a_row >= NONFINITE_LIMIT:
                raise Diverged(
                    f"loss or gradient was not finite at {NONFINITE_LIMIT} updates in a row, the last at step "
                    f"{progress.step}{_first_broken(self.setup)}. Lower the learning rate (--lr), or look at the rollouts "
                    "of these steps"
                )
            if self._due():
                self._save()
                saved = progress.step
            self.saving.look()
        display.end()
        if saved != progress.step:
            self._save()
        self.saving.wait()
        stopped = not finished(config, progress)
        after = None
        if not stopped:
            with self.interrupt.shield(), storing(self.folder):
                save_into(self.folder / "final", self.setup.policy.export)
            if self.setup.eval_prompts:
                after = _evaluate(self.setup, display, "after")
                self._keep_printed("after")
        self._count_time()
        with storing(self.folder):
            verdict = self.setup.collector.grader.verdict
            metrics = [json.loads(line) for line in (self.folder / METRICS).read_text().splitlines()]
            if not stopped:
                text = card(config, self.folder.name, metrics, verdict=verdict, after=after)
                write_atomically(
                    self.folder / "final" / "README.md", lambda path: path.write_text(text, encoding="utf-8")
                )
            summary = summary_of(config, progress, metrics, extra, after, stopped, verdict)
            write_atomically(self.folder / SUMMARY, lambda path: path.write_text(json.dumps(summary, indent=1) + "\n"))
        before = extra["before"]
        return Result(
            folder=self.folder,
            model=None if stopped else self.folder / "final",
            metrics=metrics,
            summary=summary,
            before=None if before is None else read_evaluation(before),
            after=after,
            stopped=stopped,
        )

    def _step(self, observers: Sequence[Observer]) -> StepResult:
        config, setup, progress, display = self.config, self.setup, self.progress, self.display
        result = one_step(self.training)
        step, metrics = progress.step, result.metrics
        setup.stand(step)
        grader = setup.collector.grader
        metrics |= setup.collector.engine_metrics() | grader.scorer.judges.take_metrics()
        metrics |= apart(grader.take_metrics(), metrics)
        metrics |= {f"weight/{name}": grader.weight(name, step - 1) for name in grader.composition.schedules}
        due = (
            bool(config.evaluation.eval_every)
            and step % config.evaluation.eval_every == 0
            and not finished(config, progress)
        )
        try:
            if setup.eval_prompts and due:
                self._evaluate_between(metrics)
        finally:
            with self.interrupt.shield(), storing(self.folder):
                if not self.claim.stands:
                    raise StorageError(f"{self.folder} was deleted, moved or replaced while the run wrote into it")
                try:
                    metrics["time/record"] = self.recorder.rollouts(step, result)
                finally:
                    self.recorder.metrics(step, metrics)
                self.undo.begin()
        display.failures(_take(grader.failures))
        unheard = unheard_agents(agent_models(self.config), result.rollouts) if step == 1 else []
        for text in [*result.warnings, *unheard]:
            display.log(f"  warning: {text}")
        self._keep_printed(f"step {step}")
        for observer in observers:
            for message in observer.step({"step": step, **metrics}):
                display.log(f"  {message}")
        rate = (
            metrics["rollouts/sampled"] * metrics.get("completion/length_mean", 0.0) / max(1e-9, metrics["time/step"])
        )
        drawn = setup.offline is None
        rewards = setup.collector.reward_names
        values = step_values(metrics, rewards=rewards, verdict=grader.verdict, drawn=drawn)
        display.step(step, {**values, "tok/s": rate if drawn else None})
        if config.output.show_every and (step == 1 or step % config.output.show_every == 0):
            display.rollouts(step, result.rollouts)
        return result

    def _keep_printed(self, when: str) -> None:
        """Show and keep what reward functions and environments printed."""
        collector, recorder = self.setup.collector, self.recorder
        said = [("reward", collector.grader.scorer.printed.take(), recorder.reward_log)]
        if collector.environments is not None:
            said.append(("environment", collector.environments.printed(), recorder.environment_log))
        for who, text, log in said:
            with storing(self.folder):
                recorder.printed(when, text, log)
            self.display.printed(text, log, who)

    def _evaluate_between(self, metrics: dict[str, float]) -> None:
        setup, step, extra = self.setup, self.progress.step, self.extra
        with setup.resting():
            evaluation = evaluate_prompts(greedy(setup.collector), setup.eval_prompts, seed=self.config.seed)
        setup.collector.take_tokens()
        metrics["eval/accuracy"] = evaluation.accuracy
        logged = setup.collector.grader.take_metrics()
        metrics |= apart({f"eval/{name}": value for name, value in logged.items()}, metrics)
        self.display.log(f"  step {step}: {evaluation.headline} on {evaluation.problems} held-out prompts")
        if evaluation.accuracy > (-1.0 if extra["best"] is None else extra["best"]["accuracy"]):
            extra["best"] = {"step": step, "accuracy": evaluation.accuracy}
            with self.interrupt.shield(), storing(self.folder):
                save_into(self.folder / "best", setup.policy.export)

    def _due(self) -> bool:
        every = self.config.checkpoint
        late = bool(every.minutes) and time.monotonic() - self.saved_at >= 60 * every.minutes
        return self.progress.step % every.every == 0 or late

    def _count_time(self) -> None:
        now = time.monotonic()
        self.extra["seconds"], self.clock = self.extra["seconds"] + now - self.clock, now

    def _save(self, folder: Path | None = None) -> None:
        """Begin to write a checkpoint."""
        self._count_time()
        self.extra["memory"] = max(self.extra.get("memory", 0), peak(self.setup.policy.device))
        if self.claim.stands:
            with storing(self.folder):
                self.recorder.flush()
        state = capture(self.training, self.extra, self.inputs)
        self.saving.begin(folder or self.folder, self.progress.step, self.training.trainer.save, state)
        self.saved_at = time.monotonic()

    def _rescue(self, error: BaseException) -> None:
        """Save the last whole step, and say on the error where it is."""
        where, why, written = self.folder, "", None
        try:
            with self.interrupt.shield():
                if self.undo.whole:
                    self.undo.undo()
                    if not self.training.trainer.finite():
                        raise Diverged("the weights are not finite")
                    where = rescue(self.claim, self.config)
                    with suppress(StorageError):
                        self.saving.wait()  # for the one before
                    self._save(where)
                    written = self.saving.wait()
                else:
                    why = (
                        f"step {self.progress.step + 1} was in the middle of its updates, and no copy is kept of what it "
                        "changes of a model this large"
                    )
        except KeyboardInterrupt:
            why = "saving was interrupted"
        except Exception as failed:
            why = f"the last whole step could not be saved: {failed}"
        tell_saved(error, written, where, why, self.progress.step)


def _first_broken(setup: Setup) -> str:
    """Where the model's numbers are no numbers, if they are not."""
    policy = setup.policy
    found = policy.first_not_finite(policy.actions_after([setup.prompts[0].tokens], [()]))
    return f" (the first that is NaN or infinite is {found})" if found else ""


def apart(logged: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """What reward functions logged, under names that the run does not use itself."""
    return {f"logged/{name}" if name in own or name == "step" else name: value for name, value in logged.items()}


def _take(messages: list[str]) -> list[str]:
    taken, messages[:] = list(messages), []
    return taken


def _evaluate(setup: Setup, display: Display, when: str) -> Evaluation:
    with setup.resting():
        evaluation = evaluate_prompts(greedy(setup.collector), setup.eval_prompts, seed=setup.config.seed)
    setup.collector.grader.take_metrics()
    low, high = evaluation.intervals.get("pass@1", (math.nan, math.nan))
    known = "" if math.isnan(low) else f" [{low:.1%}, {high:.1%}]"
    note = f"; {evaluation.note}" if evaluation.note else ""
    display.log(
        f"{when} training: {evaluation.headline}{known} on {evaluation.problems} held-out prompts (greedy){note}"
    )
    return evaluation


__all__ = ["Diverged", "Result", "train"]
