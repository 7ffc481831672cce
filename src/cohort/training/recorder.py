"""What a run writes: metrics, curves and rollouts."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from cohort.errors import UsageError
from cohort.files import write_atomically
from cohort.methods import Method
from cohort.training import subsample
from cohort.training.config import TrainConfig
from cohort.training.outcome import StepResult
from cohort.training.table import CONTINUOUS, PiecesOf, rollout_table, signals

# Share of `record_limit_mb` from which on only texts, rewards and numbers of whole rollouts are recorded.
LISTS_UNTIL = 0.8
# Bytes of what reward functions, or environments, printed that are kept: beyond them, the older half goes.
LOG_LIMIT = 2_000_000


class Recorder:
    """Writes into a run's folder.

    Args:
        folder: of the run.
        config: of the run.
        start: the step that the run continues after; what was recorded of later steps is dropped.
        method: of the run, for the names of its filters.
        pieces: token ids -> the text of each; without it, texts of tokens are not recorded.
        log: takes a line for the user.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        *,
        start: int,
        method: Method | None = None,
        pieces: PiecesOf | None = None,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.folder, self.config = folder, config
        self.pieces, self.log = pieces, log
        self.filters = (_filters(method, after=False), _filters(method, after=True))
        self.metrics_path = folder / "metrics.jsonl"
        self.rollouts_folder = folder / "rollouts"
        self._drop_after(start)
        # Groups whose tokens are recorded, seconds trained since the last record, bytes of all records and of the last.
        self._groups, self._elapsed = 1.0, 0.0
        sizes = [path.stat().st_size for path in _records(self.rollouts_folder)]
        self._bytes, self._last = sum(sizes), sizes[-1] if sizes else 0
        self._said: set[str] = set()
        self._metrics = self.metrics_path.open("a", encoding="utf-8")
        self._board: Any = None
        if config.output.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1 if start else None)
        self._wandb: Any = None
        if config.output.wandb:
            self._wandb = require_wandb().init(
                project=config.output.wandb, name=folder.name, config=config.plain(), dir=str(folder)
            )

    def _drop_after(self, step: int) -> None:
        if self.metrics_path.exists():
            kept = _lines_until(self.metrics_path, step)
            write_atomically(self.metrics_path, lambda path: path.write_text("".join(kept), encoding="utf-8"))
        for path in _records(self.rollouts_folder):
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

    def rollouts(self, step: int, result: StepResult) -> float:
        """Write a step's rollouts, as `record`, `record_every` and `record_limit_mb` say; the seconds that it took."""
        config, began = self.config, time.perf_counter()
        self._elapsed += result.metrics["time/step"]
        detail = "none" if not config.output.record_every or step % config.output.record_every else self._detail()
        if detail == "none":
            return 0.0
        groups = None
        if detail == "sampled":
            groups = subsample.chosen(signals(result), int(self._groups), step=step, seed=config.seed)
        table = rollout_table(
            result, tokens=detail != "rollouts", groups=groups, pieces=self.pieces, filters=self.filters
        )
        self._write(step, table)
        spent = time.perf_counter() - began
        if groups is not None:
            most = result.everything.groups.count
            self._groups = subsample.affordable(self._groups, spent, self._elapsed, most)
        self._elapsed = 0.0
        return spent

    @property
    def reward_log(self) -> Path:
        """What reward functions printed."""
        return self.folder / "rewards.log"

    @property
    def environment_log(self) -> Path:
        """What environments printed."""
        return self.folder / "environments.log"

    def printed(self, when: str, text: str, log: Path | None = None) -> None:
        """Keep what reward functions printed, or others in a log of theirs."""
        log = log or self.reward_log
        if text.strip():
            with log.open("a", encoding="utf-8", errors="replace") as file:
                file.write(f"== {when}\n{text.rstrip()}\n")
                size = file.tell()
            if size > LOG_LIMIT:
                kept = log.read_bytes()[-LOG_LIMIT // 2 :].partition(b"\n")[2]
                write_atomically(log, lambda path: path.write_bytes(kept), durable=False)

    def _detail(self) -> str:
        """What is recorded of the next step, after what there is room for."""
        output = self.config.output
        if output.record == "none":
            return "none"
        limit = output.record_limit_mb * 1e6
        if self._bytes + self._last > limit:
            self._log_once(
                "rollouts",
                f"{self.rollouts_folder} holds {self._bytes / 1e6:.0f} MB of {output.record_limit_mb} (record_limit_mb): no "
                "more rollouts are recorded",
            )
            return "none"
        if output.record != "rollouts" and self._bytes > LISTS_UNTIL * limit:
            self._log_once(
                "tokens",
                f"{self.rollouts_folder} holds {self._bytes / 1e6:.0f} MB of {output.record_limit_mb} (record_limit_mb): "
                "rollouts are recorded without the numbers of their tokens",
            )
            return "rollouts"
        return output.record

    def _log_once(self, what: str, text: str) -> None:
        if what not in self._said:
            self._said.add(what)
            self.log(text)

    def _write(self, step: int, table: pa.Table) -> None:
        self.rollouts_folder.mkdir(exist_ok=True)
        path = self.rollouts_folder / f"step-{step:06d}.parquet"
        dictionary = [_leaf(field) for field in table.schema if field.name not in CONTINUOUS]
        # Waiting for the disk would cost more than all else here.
        write_atomically(
            path,
            lambda aside: pq.write_table(table, aside, compression="zstd", use_dictionary=dictionary),
            durable=False,
        )
        self._last = path.stat().st_size
        self._bytes += self._last

    def flush(self) -> None:
        """Have metrics and curves reach the disk: a checkpoint continues after them."""
        self._metrics.flush()
        os.fsync(self._metrics.fileno())
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        self._metrics.close()
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


def _filters(method: Method | None, *, after: bool) -> str:
    """Names of a method's filters before or after the advantage."""
    stages = () if method is None else method.filter
    return " or ".join(stage.name for stage in stages if stage.declared.after_advantage == after)


def _leaf(field: pa.Field) -> str:
    """The path of a column's values in the file."""
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name


def _records(folder: Path) -> list[Path]:
    """Recorded rollouts, in the order of their steps; what is named otherwise is none."""
    found = (path for path in folder.glob("step-*.parquet") if re.fullmatch(r"step-[0-9]{6,}", path.stem))
    return sorted(found, key=lambda path: int(path.stem.removeprefix("step-")))


def _lines_until(path: Path, step: int) -> list[str]:
    """Lines of the steps up to `step`; one cut by a crash holds none."""
    out = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            if line.endswith("\n") and json.loads(line)["step"] <= step:
                out.append(line)
        except (ValueError, TypeError, KeyError):
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
