"""Measuring a finished run on held-out and further problems, the same way for every method."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cohort.analysis.measure import HELD_OUT, evaluated_as, write_evaluation
from cohort.analysis.store import Run
from cohort.data.load import load_rows
from cohort.data.prompts import fill, template_of
from cohort.errors import UsageError
from cohort.experiments.plan import identity
from cohort.training.config import TrainConfig, make_config
from cohort.training.evaluation import evaluate_model
from cohort.types import Rollout


def is_finished(folder: Path) -> bool:
    """True if the run in the folder has made all its steps and left its final model."""
    run = Run(folder)
    run.refresh(0)
    return run.summary.get("stopped") is False and os.path.isdir(folder / "final")


def lacking(
    folder: Path, config: TrainConfig, samples: int, transfer: Mapping[str, str]
) -> dict[str, tuple[TrainConfig, dict[str, Any]]]:
    """Evaluations that do not stand there as asked: name -> the configuration that makes it, and what it is made of."""
    if not samples or config.evaluation.eval_data is None:
        return {}
    out = {}
    for name, data in {HELD_OUT: config.evaluation.eval_data, **transfer}.items():
        made = {
            "data": identity(data),
            "limit": config.evaluation.eval_size,
            "temperature": config.sampling.temperature,
            "seed": config.seed,
            "reward": config.plain()["reward"],
            **{key: value for key in ("environment", "tools") if (value := config.plain()[key])},
        }
        stored = evaluated_as(folder, name)
        if stored is None or stored != {**made, "samples": samples}:
            out[name] = (_evaluation_config(folder, config, data), made)
    return out


def _evaluation_config(folder: Path, config: TrainConfig, data: Any) -> TrainConfig:
    """The run's final model on some data, with the run's rewards; of its own way with columns what the data has."""
    left_out = {"method", "eval_data", "pairs", "out", "lora", "data", "model", "activations"}
    values = {
        key: value
        for key, value in config.given().items()
        if key not in left_out and not key.startswith(("engine", "worker", "ray_", "checkpoint."))
    }
    if data is not config.evaluation.eval_data:
        row = load_rows(data, seed=0)[0]
        for key in ("prompt_field", "answer_field"):
            if values.get(key) not in row:
                values.pop(key, None)
        template = template_of(values.get("template"))
        if template is not None:
            try:
                fill(template, row)
            except UsageError:
                del values["template"]
    return make_config(values, {"model": str(folder / "final"), "data": data})


def judged(rollouts: Sequence[Rollout], samples: int) -> list[Rollout]:
    """Those of problems whose completions, `samples` of each, all have a reward and a verdict."""
    problems = [rollouts[i : i + samples] for i in range(0, len(rollouts), samples)]
    return [r for group in problems if all(r.scored and not math.isnan(r.accuracy) for r in group) for r in group]


def evaluate_run(
    folder: Path, config: TrainConfig, samples: int, transfer: Mapping[str, str], log: Callable[[str], None]
) -> dict[str, float]:
    """Measure a finished run on what it lacks, and store the completions with it. Name -> pass@1 of what was measured.

    Runs of one seed draw with the same request seeds, whatever their method.
    """
    out = {}
    for name, (made_of, made) in lacking(folder, config, samples, transfer).items():
        found = evaluate_model(made_of, samples=samples, limit=config.evaluation.eval_size, log=log)
        rollouts = judged(found.rollouts, samples)
        if not rollouts:
            raise UsageError(
                f"{folder}: no problem of {name} has a verdict on all {samples} of its completions, so none counts: ask for "
                "fewer with --samples, or take a reward that applies to every completion"
            )
        if len(rollouts) < len(found.rollouts):
            left = (len(found.rollouts) - len(rollouts)) // samples
            log(
                f"{left} of {found.problems} problems of {name} are left out: the verifier does not apply to a completion"
            )
        write_evaluation(folder, name, rollouts, samples, made)
        out[name] = sum(r.accuracy for r in rollouts) / len(rollouts)
    return out
