"""A run from start to end: set-up, steps, checkpoints, evaluation, what stays on disk."""

from __future__ import annotations

import json
import math
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cohort.errors import Diverged, EngineError, UsageError
from cohort.insight.doctor.watch import Watch
from cohort.insight.store import open_run
from cohort.methods import Method
from cohort.policies.given import GivenModel
from cohort.policies.pieces import Pieces
from cohort.rewards.scorer import RewardError
from cohort.training import checkpoint
from cohort.training.config import TrainConfig
from cohort.training.display import Display
from cohort.training.evaluate import Evaluation, evaluate_prompts
from cohort.training.loop import Progress, one_step
from cohort.training.memory import peak, reset_peak
from cohort.training.opening import say_text
from cohort.training.precision import MasterWeights
from cohort.training.recorder import Recorder, require_wandb
from cohort.training.setup import Setup, check_space, name_of_run, optimizer_of, prepare

# Keys that may differ between a run and its continuation: they change what is written or shown, or how long it goes on
# (a constant learning rate does not depend on the number of steps).
RESUMABLE = frozenset(
    {
        "out", "checkpoint", "record", "record_every", "record_limit_mb", "show_every", "doctor", "tensorboard", "wandb",
        "eval_every", "threads", "max_tokens_sampled", "activations", "compile",
    }
    | {"engine_url", "engine_folder", "engine_weights", "engine_memory", "engine_timeout"}
)  # fmt: skip
NONFINITE_LIMIT = 3


@dataclass
class Result:
    """What a run came to.

    Attributes:
        folder: of the run.
        model: folder of the trained model, for `from_pretrained`; None if the run was stopped before its end.
        metrics: one mapping a step.
        summary: what stands in summary.json.
        before, after: evaluations on held-out prompts, where there are any.
        stopped: True if the run was stopped before its last step.
    """

    folder: Path
    model: Path | None
    metrics: list[dict[str, Any]]
    summary: dict[str, Any]
    before: Evaluation | None = None
    after: Evaluation | None = None
    stopped: bool = False

    def table(self) -> Any:
        """The metrics as an Arrow table, a row a step."""
        import pyarrow as pa

        names = list(dict.fromkeys(name for row in self.metrics for name in row))
        return pa.table({name: [row.get(name) for row in self.metrics] for name in names})


@dataclass
class _Interrupt:
    """Set by the first SIGINT; the second one interrupts at once."""

    asked: bool = False
    said: Callable[[str], None] = field(default=lambda _: None)

    @contextmanager
    def watching(self) -> Iterator[None]:
        def handler(number: int, frame: object) -> None:
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True
            self.said("stopping after this step (press Ctrl-C again to stop at once)")

        try:
            before = signal.signal(signal.SIGINT, handler)
        except ValueError:  # not in the main thread: leave signals to whoever has it
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def train(
    config: TrainConfig,
    *,
    method: Method | None = None,
    resume: bool = False,
    display: Display | None = None,
    given: GivenModel | None = None,
) -> Result:
    """Run a training run.

    Args:
        method, given: the method and the model, where they are not what the configuration says but were made in Python.
        resume: continue from the newest whole checkpoint of the run's folder; start afresh where there is none.

    Raises:
        UsageError: what was asked cannot be done; nothing was written.
        RewardError: a reward function failed and on_reward_error is "stop"; everything so far is saved.
        EngineError: a vLLM that rollouts are drawn with failed; everything so far is saved.
        Diverged: loss or gradient was not finite three times in a row, and a checkpoint is saved; or the model's logits are
            not, and the checkpoint before stays as it is.
    """
    display = display or Display()
    torch.manual_seed(config.seed)
    folder = choose_folder(config, resume)
    if folder.is_file():
        raise UsageError(f"--out {folder} is a file; name a folder")
    found = checkpoint.newest(folder / "checkpoints", display.say) if resume else None
    if not resume and folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} already holds something: name another folder with --out, or continue with --resume")
    setup = prepare(config, method=method, say=display.say, report=_warm_start(display), given=given)
    try:
        check_space(folder, setup.policy, setup.config)
        if found is not None:
            check_same_run(folder, setup.config)
        drawn = setup.collector.samples or bool(setup.eval_prompts)
        say_text(setup.policy, setup.prompts, display.say, sampled=drawn)
        return _run(setup, folder, found, display)
    finally:
        setup.close()


def _run(setup: Setup, folder: Path, found: Path | None, display: Display) -> Result:
    config = setup.config
    began = time.monotonic()
    reset_peak(setup.policy.device)
    if found is None and folder.exists():
        # What an attempt without a checkpoint left behind starts afresh.
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if config.wandb:
        require_wandb()
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = optimizer_of(setup)
    rows = [prompt.row for prompt in setup.prompts]
    progress = Progress(states=setup.method.init(size=len(rows), steps=config.steps, rows=rows))
    extra: dict[str, Any] = {"before": None, "best": None, "seconds": 0.0}
    if found is not None:
        extra = _restore(found, setup, optimizer, progress)
        display.say(f"continuing {folder} after step {progress.step}")
    else:
        config.model_copy(update={"out": str(folder)}).save(folder / "config.yaml")
    words = setup.policy.tokenizer
    recorder = Recorder(
        folder, config, start=progress.step, method=setup.method, pieces=words and Pieces(words), say=display.say
    )
    watch = Watch(folder.name, config.plain(), open_run(folder).metrics) if config.doctor else None
    interrupt = _Interrupt(said=display.say)

    def save() -> None:
        extra["seconds"] += time.monotonic() - extra.get("clock", began)
        extra["clock"] = time.monotonic()
        extra["memory"] = max(extra.get("memory", 0), peak(setup.policy.device))
        state = _state(setup, optimizer, progress, {k: v for k, v in extra.items() if k != "clock"})
        checkpoint.write(folder / "checkpoints", progress.step, setup.policy.save, state, keep=config.checkpoint.keep)

    try:
        with interrupt.watching():
            if setup.eval_prompts and extra["before"] is None:
                extra["before"] = _evaluate(setup, display, "before").to_dict()
            display.begin("training", config.steps, progress.step)
            while not finished(config, progress) and not interrupt.asked:
                _step(setup, optimizer, progress, recorder, watch, display, folder, extra)
                if progress.in_a_row >= NONFINITE_LIMIT:
                    save()
                    raise Diverged(
                        f"loss or gradient was not finite at {NONFINITE_LIMIT} updates in a row, the last at step "
                        f"{progress.step}; the weights before them are saved in {folder}/checkpoints. Lower the learning "
                        "rate (--lr), or look at the rollouts of these steps"
                    )
                ends = finished(config, progress) or interrupt.asked
                if progress.step % config.checkpoint.every == 0 or ends:
                    save()
            display.end()
        stopped = not finished(config, progress)
        after = None
        if not stopped:
            setup.policy.save(folder / "final")
            if setup.eval_prompts:
                after = _evaluate(setup, display, "after")
        extra["seconds"] += time.monotonic() - extra.get("clock", began)
        metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        summary = _summary(config, progress, metrics, extra, after, stopped)
        checkpoint.write_atomically(
            folder / "summary.json", lambda path: path.write_text(json.dumps(summary, indent=1) + "\n")
        )
        before = extra["before"]
        return Result(
            folder=folder,
            model=None if stopped else folder / "final",
            metrics=metrics,
            summary=summary,
            before=None if before is None else _read_evaluation(before),
            after=after,
            stopped=stopped,
        )
    except UsageError:
        # What only the first rewards could show, such as graded rewards for a method of right and wrong.
        recorder.close()
        if progress.step == 0:
            shutil.rmtree(folder)
        else:
            save()
        raise
    except (RewardError, EngineError):
        save()
        raise
    finally:
        display.end()
        recorder.close()


def finished(config: TrainConfig, progress: Progress) -> bool:
    """The run has made all its steps, or sampled all the tokens that it may."""
    spent = bool(config.max_tokens_sampled) and progress.tokens >= config.max_tokens_sampled
    return progress.step >= config.steps or spent


def _step(
    setup: Setup,
    optimizer: MasterWeights,
    progress: Progress,
    recorder: Recorder,
    watch: Watch | None,
    display: Display,
    folder: Path,
    extra: dict[str, Any],
) -> None:
    config = setup.config
    result = one_step(setup, optimizer, progress)
    step, metrics = progress.step, result.metrics
    due = bool(config.eval_every) and step % config.eval_every == 0 and not finished(config, progress)
    if setup.eval_prompts and due:
        evaluation = evaluate_prompts(_greedy(setup), setup.eval_prompts, seed=config.seed)
        setup.collector.take_tokens()
        metrics["eval/accuracy"] = evaluation.accuracy
        display.say(f"  step {step}: accuracy {evaluation.accuracy:.1%} on {evaluation.problems} held-out prompts")
        if extra["best"] is None or evaluation.accuracy > extra["best"]["accuracy"]:
            extra["best"] = {"step": step, "accuracy": evaluation.accuracy}
            _save_aside(setup, folder / "best")
    metrics["time/record"] = recorder.rollouts(step, result)
    recorder.metrics(step, metrics)
    for message in _take(setup.collector.grader.failures):
        display.say(f"  {message}")
    for message in watch.step({"step": step, **metrics}) if watch is not None else []:
        display.say(f"  {message}")
    rate = metrics["rollouts/sampled"] * metrics.get("completion/length_mean", 0.0) / max(1e-9, metrics["time/step"])
    display.step(
        step,
        {
            "reward": metrics["reward/mean"], "accuracy": metrics.get("accuracy"), "entropy": _defined(metrics, "entropy"),
            "kl": metrics.get("kl"), "tok/s": rate,
        },
    )  # fmt: skip
    if config.show_every and step % config.show_every == 0:
        display.rollouts(step, result.rollouts)


def _defined(metrics: Mapping[str, float], name: str) -> float | None:
    value = metrics.get(name)
    return None if value is None or math.isnan(value) else value


def _take(messages: list[str]) -> list[str]:
    taken, messages[:] = list(messages), []
    return taken


def _greedy(setup: Setup) -> Any:
    from dataclasses import replace

    return replace(setup.collector, sampling=replace(setup.collector.sampling, temperature=0.0))


def _evaluate(setup: Setup, display: Display, when: str) -> Evaluation:
    evaluation = evaluate_prompts(_greedy(setup), setup.eval_prompts, seed=setup.config.seed)
    low, high = evaluation.intervals["pass@1"]
    display.say(
        f"{when} training: accuracy {evaluation.accuracy:.1%} [{low:.1%}, {high:.1%}] on {evaluation.problems} held-out "
        "prompts (greedy)"
    )
    return evaluation


def _read_evaluation(stored: Mapping[str, Any]) -> Evaluation:
    metrics = {k: v["value"] for k, v in stored["metrics"].items()}
    intervals = {k: (_or_nan(v["low"]), _or_nan(v["high"])) for k, v in stored["metrics"].items()}
    return Evaluation(metrics, intervals, stored["problems"], stored["samples"])


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _save_aside(setup: Setup, folder: Path) -> None:
    """Replace a model's folder as a whole."""
    aside = folder.with_name(f".{folder.name}.tmp")
    if aside.exists():
        shutil.rmtree(aside)
    setup.policy.save(aside)
    if folder.exists():
        shutil.rmtree(folder)
    aside.rename(folder)


def _summary(
    config: TrainConfig,
    progress: Progress,
    metrics: Sequence[Mapping[str, Any]],
    extra: Mapping[str, Any],
    after: Evaluation | None,
    stopped: bool,
) -> dict[str, Any]:
    before = extra["before"]
    summary: dict[str, Any] = {
        "method": config.method,
        "model": config.model,
        "seed": config.seed,
        "steps": progress.step,
        "sampled_tokens": progress.tokens,
        "seconds": round(extra["seconds"], 2),
        "skipped_updates": progress.skipped,
        "peak_memory": extra.get("memory"),
        "stopped": stopped,
    }
    sampled = [row["accuracy"] for row in metrics if row.get("accuracy") is not None]
    if sampled and progress.tokens:
        summary["accuracy_first_step"], summary["accuracy_last_step"] = sampled[0], sampled[-1]
    if before is not None:
        summary["accuracy_before"] = before["metrics"]["pass@1"]["value"]
    if after is not None:
        summary["accuracy_after"] = after.accuracy
        summary["evaluation_before"], summary["evaluation_after"] = before, after.to_dict()
    if extra["best"] is not None:
        summary["best"] = extra["best"]
    return summary


def choose_folder(config: TrainConfig, resume: bool) -> Path:
    """The run's folder: the one asked for, or the next free number under runs/; to resume, the newest of that name."""
    if config.out is not None:
        return Path(config.out)
    stem = name_of_run(config)
    taken = {
        int(p.name.rsplit("-", 1)[1]): p for p in Path("runs").glob(f"{stem}-*") if p.name.rsplit("-", 1)[1].isdigit()
    }
    if resume and taken:
        return taken[max(taken)]
    return Path("runs") / f"{stem}-{max(taken, default=0) + 1}"


def check_same_run(folder: Path, config: TrainConfig) -> None:
    """The run in the folder has the same configuration, but for keys that do not change what is computed.

    Raises:
        UsageError: names the keys that differ.
    """
    import yaml

    try:
        stored = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"{folder}/config.yaml cannot be read, so the run cannot be continued: {error}") from error
    now = config.plain()
    allowed = RESUMABLE | ({"steps"} if config.schedule == "constant" else set())
    differing = [k for k in now if k not in allowed and stored.get(k) != now[k]]
    if differing:
        what = ", ".join(f"{k} (was {stored.get(k)!r}, now {now[k]!r})" for k in differing)
        raise UsageError(f"{folder} holds a run with another configuration: {what}; name another folder with --out")


def _state(setup: Setup, optimizer: MasterWeights, progress: Progress, extra: Mapping[str, Any]) -> dict[str, Any]:
    version, keys, gauss = random.getstate()
    name, numbers, position, has_gauss, cached = np.random.get_state()
    return {
        "optimizer": optimizer.state_dict(),
        "side": setup.policy.side_state(),
        "progress": dict(vars(progress)),
        "extra": dict(extra),
        "random": {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "python": [version, list(keys), gauss],
            "numpy": [name, [int(n) for n in numbers], int(position), int(has_gauss), float(cached)],
        },
    }


def _restore(found: Path, setup: Setup, optimizer: MasterWeights, progress: Progress) -> dict[str, Any]:
    state = checkpoint.read_state(found)
    setup.policy.load_weights(found / "model")
    setup.policy.load_side_state(state["side"])
    optimizer.load_state_dict(state["optimizer"])
    for name, value in state["progress"].items():
        setattr(progress, name, value)
    generators = state["random"]
    torch.set_rng_state(generators["torch"])
    if torch.cuda.is_available() and generators["cuda"]:
        torch.cuda.set_rng_state_all(generators["cuda"])
    version, keys, gauss = generators["python"]
    random.setstate((version, tuple(keys), gauss))
    name, numbers, position, has_gauss, cached = generators["numpy"]
    np.random.set_state((name, np.array(numbers, dtype=np.uint32), position, has_gauss, cached))
    extra: dict[str, Any] = state["extra"]
    return extra


def _warm_start(display: Display) -> Callable[[str, int, int, Mapping[str, float]], None]:
    began = {"at": 0.0}

    def report(phase: str, step: int, steps: int, values: Mapping[str, float]) -> None:
        if step == 1:
            display.begin(phase, steps)
            began["at"] = time.monotonic()
        rate = values["tokens"] * step / max(1e-9, time.monotonic() - began["at"]) if step > 1 else None
        display.step(step, {"loss": values["loss"], "tok/s": rate})
        if step == steps:
            display.end()

    return report


__all__ = ["Diverged", "Result", "train"]
