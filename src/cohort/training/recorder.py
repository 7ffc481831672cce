"""What a run writes: metrics, curves and rollouts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from cohort.batch import Batch, Rollout
from cohort.errors import UsageError
from cohort.training.checkpoint import write_atomically
from cohort.training.config import TrainConfig


class Recorder:
    """Writes into a run's folder.

    Args:
        folder: of the run.
        config: of the run.
        start: the step that the run continues after; what was recorded of later steps is dropped.
    """

    def __init__(self, folder: Path, config: TrainConfig, *, start: int) -> None:
        self.folder = folder
        self.metrics_path = folder / "metrics.jsonl"
        self.rollouts_folder = folder / "rollouts"
        self._drop_after(start)
        self._metrics = self.metrics_path.open("a", encoding="utf-8")
        self._board: Any = None
        if config.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1 if start else None)
        self._wandb: Any = None
        if config.wandb:
            self._wandb = require_wandb().init(
                project=config.wandb, name=folder.name, config=config.plain(), dir=str(folder)
            )

    def _drop_after(self, step: int) -> None:
        if self.metrics_path.exists():
            kept = [line for line in _whole_lines(self.metrics_path) if json.loads(line)["step"] <= step]
            write_atomically(self.metrics_path, lambda path: path.write_text("".join(kept), encoding="utf-8"))
        for path in self.rollouts_folder.glob("step-*.parquet"):
            if int(path.stem.removeprefix("step-")) > step:
                path.unlink()

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """One object a step."""
        row = {"step": step, **{k: _number(v) for k, v in values.items()}}
        self._metrics.write(json.dumps(row) + "\n")
        self._metrics.flush()
        if self._board is not None:
            for name, value in row.items():
                if name != "step" and isinstance(value, (int, float)):
                    self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(row, step=step)

    def rollouts(self, step: int, rollouts: Sequence[Rollout], batch: Batch | None, trained: Sequence[int]) -> None:
        """All rollouts of a step as Parquet.

        Args:
            batch: the rows that were trained on, with advantages; `trained` says which rollout each row is.
        """
        self.rollouts_folder.mkdir(exist_ok=True)
        table = rollout_table(rollouts, batch, trained)
        write_atomically(
            self.rollouts_folder / f"step-{step:06d}.parquet",
            lambda path: pq.write_table(table, path, compression="zstd"),
        )

    def close(self) -> None:
        self._metrics.close()
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


def rollout_table(rollouts: Sequence[Rollout], batch: Batch | None, trained: Sequence[int]) -> pa.Table:
    """Rollouts as a table: prompt, completion, tokens, what each was rewarded and how its tokens were weighted."""
    rows: dict[int, int] = {rollout: row for row, rollout in enumerate(trained)}
    groups = {key: i for i, key in enumerate(dict.fromkeys(r.prompt.id for r in rollouts))}

    def per_token(name: str) -> list[list[float] | None]:
        if batch is None or name not in batch:
            return [None] * len(rollouts)
        values = batch[name].detach().float().cpu()
        return [
            values[rows[i], : len(rollout.tokens)].tolist() if i in rows else None for i, rollout in enumerate(rollouts)
        ]

    names = list(dict.fromkeys(name for r in rollouts for name in r.components))
    columns: dict[str, Any] = {
        "group": pa.array([groups[r.prompt.id] for r in rollouts], pa.int32()),
        "prompt_id": pa.array([r.prompt.id for r in rollouts]),
        "prompt": pa.array([r.prompt.text for r in rollouts]),
        "completion": pa.array([r.text for r in rollouts]),
        "reward": pa.array([r.reward for r in rollouts], pa.float32()),
        "accuracy": pa.array([r.accuracy for r in rollouts], pa.float32()),
        "finished": pa.array([r.finished for r in rollouts]),
        "trained": pa.array([i in rows for i in range(len(rollouts))]),
        "tokens": pa.array([r.tokens for r in rollouts], pa.list_(pa.int32())),
        "mask": pa.array([r.mask for r in rollouts], pa.list_(pa.int8())),
        "sampler_logp": pa.array([r.sampler_logp for r in rollouts], pa.list_(pa.float32())),
        "logp": pa.array(per_token("logp"), pa.list_(pa.float32())),
        "advantage": pa.array(per_token("advantages"), pa.list_(pa.float32())),
    }
    for name in names:
        columns[f"reward/{name}"] = pa.array([r.components.get(name) for r in rollouts], pa.float32())
    for name in ("ref_logp", "entropy", "old_entropy", "policy_gradient"):
        if batch is not None and name in batch:
            columns[name] = pa.array(per_token(name), pa.list_(pa.float32()))
    return pa.table(columns)


def _whole_lines(path: Path) -> list[str]:
    """Lines that hold an object; one cut by a crash does not."""
    out = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            if isinstance(json.loads(line), dict) and line.endswith("\n"):
                out.append(line)
        except ValueError:
            continue
    return out


def _number(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        value = value.item()
    # JSON has no NaN; null is read as one by every tool for tables.
    return None if isinstance(value, float) and not math.isfinite(value) else value


def require_wandb() -> Any:
    """The wandb module.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import wandb
    except ImportError as error:
        raise UsageError("--wandb needs Weights & Biases: pip install 'cohort-rl[wandb]'") from error
    return wandb
