"""What sampling ahead of training saves, and what it costs in learning.

    python -m benchmarks.ahead hidden                    how much of the shorter stage is hidden at --ahead 1
    python -m benchmarks.ahead learning                  40 steps on the embedded model: in turns, ahead 2, and uncorrected
    python -m benchmarks.ahead learning --seeds 3 --prompts 8 --json

`hidden`: both stages are slowed down, so that neither depends on the processors that are there: the engine sleeps once a
session, the trainer once an update. Of S seconds of sampling and T of training, a step takes S + T where they take turns, and
max(S, T) at best; the share that is hidden is (turns - ahead) / min(S, T), of the steps from the third on (the first two are
drawn with the weights before training).

`learning`: the share of right rollouts in the last 5 steps, and greedy accuracy on 200 held-out problems, of every seed;
intervals are 95 % of Student's t over the seeds. The three arms of a seed have the same prompts in the same order.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from cohort.analysis.statistics import t_quantile
from cohort.engine.native.engine import NativeEngine, NativeSession
from cohort.training.config import make_config
from cohort.training.display import Display
from cohort.training.precision import MasterWeights
from cohort.training.run import train

ARMS: dict[str, dict[str, Any]] = {
    "in turns": {"ahead": 0},
    "ahead": {"ahead": 2},
    "ahead, uncorrected": {"ahead": 2, "correction": "off"},
}
QUIET = {"tensorboard": False, "record": "none", "doctor": False, "show_every": 0, "eval_size": 200}


@contextmanager
def slowed(engine: float, trainer: float) -> Iterator[None]:
    """Have every session of the embedded engine, and every update, take so many seconds more."""
    session, step = NativeEngine.session, MasterWeights.step

    def slow_session(self: NativeEngine, sampling: Any) -> NativeSession:
        time.sleep(engine)
        return session(self, sampling)

    def slow_step(self: MasterWeights) -> None:
        time.sleep(trainer)
        step(self)

    NativeEngine.session, MasterWeights.step = slow_session, slow_step  # type: ignore[method-assign]
    try:
        yield
    finally:
        NativeEngine.session, MasterWeights.step = session, step  # type: ignore[method-assign]


def hidden(sampling: float, training: float, steps: int) -> dict[str, float]:
    """Seconds of a step in turns and ahead, and the share of the shorter stage that is hidden."""
    small = {"prompts_per_step": 2, "group_size": 2, "max_new_tokens": 4, "steps": steps, "eval_data": None, **QUIET}
    found: dict[str, list[Mapping[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder, slowed(sampling, training):
        for ahead in (0, 1):
            config = make_config({**small, "ahead": ahead, "out": str(Path(folder) / str(ahead))})
            found[str(ahead)] = train(config, display=Display(quiet=True)).metrics[2:]
    turns, over = (statistics.mean(row["time/step"] for row in rows) for rows in found.values())
    stages = {name: statistics.mean(row[f"time/{name}"] for row in found["0"]) for name in ("sample", "step")}
    shorter = min(stages["sample"], stages["step"] - stages["sample"])
    return {"turns": turns, "ahead": over, "shorter": shorter, "hidden": (turns - over) / shorter}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval."""
    if len(values) < 2:
        return values[0], float("nan")
    width = t_quantile(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return statistics.mean(values), width


def learning(seeds: int, steps: int, prompts: int, lr: float) -> dict[str, dict[str, list[float]]]:
    """Arm -> measure -> a value a seed."""
    out: dict[str, dict[str, list[float]]] = {arm: {} for arm in ARMS}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            for arm, changes in ARMS.items():
                given = {"steps": steps, "prompts_per_step": prompts, "lr": lr, "seed": seed, **QUIET, **changes}
                config = make_config({**given, "out": str(Path(folder) / f"{arm}-{seed}".replace(" ", "-"))})
                result = train(config, display=Display(quiet=True))
                assert result.after is not None
                last = [row["accuracy"] for row in result.metrics[-5:]]
                found = {"rollouts": statistics.mean(last), "held out": result.after.accuracy}
                if changes["ahead"]:
                    found["staleness"] = statistics.mean(row["mismatch/staleness"] for row in result.metrics[-5:])
                for name, value in found.items():
                    out[arm].setdefault(name, []).append(value)
                print(f"seed {seed}, {arm}: {', '.join(f'{k} {v:.4f}' for k, v in found.items())}", flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("hidden", "learning"))
    parser.add_argument("--sampling", type=float, default=3.0, help="seconds that a step's sampling takes more")
    parser.add_argument("--training", type=float, default=2.0, help="seconds that its update takes more")
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--json", action="store_true", help="the last line is one object with all figures")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.what == "hidden":
        found: Any = hidden(asked.sampling, asked.training, asked.steps or 10)
        print(
            f"a step takes {found['turns']:.2f} s in turns and {found['ahead']:.2f} s at --ahead 1: "
            f"{found['hidden']:.0%} of the shorter stage ({found['shorter']:.2f} s) is hidden"
        )
    else:
        found = learning(asked.seeds, asked.steps or 40, asked.prompts, asked.lr)
        for arm, measures in found.items():
            shown = ", ".join(
                "{} {:.3f} +- {:.3f}".format(name, *interval(values)) for name, values in measures.items()
            )
            print(f"{arm}: {shown}")
    if asked.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
