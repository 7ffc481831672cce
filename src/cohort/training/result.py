"""What a run came to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohort.training.config import TrainConfig
from cohort.training.evaluate import Evaluation
from cohort.training.progress import Progress


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


def read_evaluation(stored: Mapping[str, Any]) -> Evaluation:
    """An evaluation that a checkpoint holds, without its rollouts."""
    metrics = {k: v["value"] for k, v in stored["metrics"].items()}
    intervals = {k: (_or_nan(v["low"]), _or_nan(v["high"])) for k, v in stored["metrics"].items()}
    left = {name: stored[name] for name in ("unjudged", "verdict") if name in stored}
    return Evaluation(metrics, intervals, stored["problems"], stored["samples"], **left)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def summary_of(
    config: TrainConfig,
    progress: Progress,
    metrics: Sequence[Mapping[str, Any]],
    extra: Mapping[str, Any],
    after: Evaluation | None,
    stopped: bool,
    verdict: str,
) -> dict[str, Any]:
    """What stands in summary.json."""
    before = extra["before"]
    summary: dict[str, Any] = {
        "method": config.method,
        "model": config.policy.model,
        "seed": config.seed,
        "steps": progress.step,
        "sampled_tokens": progress.tokens,
        "seconds": round(extra["seconds"], 2),
        "skipped_updates": progress.skipped,
        "peak_memory": extra.get("memory"),
        "stopped": stopped,
        "verdict": verdict,
    }
    sampled = [row["accuracy"] for row in metrics if row.get("accuracy") is not None]
    if sampled and progress.tokens:
        summary["accuracy_first_step"], summary["accuracy_last_step"] = sampled[0], sampled[-1]
    if before is not None and "pass@1" in before["metrics"]:
        summary["accuracy_before"] = before["metrics"]["pass@1"]["value"]
    if after is not None:
        summary |= {} if math.isnan(after.accuracy) else {"accuracy_after": after.accuracy}
        summary["evaluation_before"], summary["evaluation_after"] = before, after.to_dict()
    if extra["best"] is not None:
        summary["best"] = extra["best"]
    return summary
