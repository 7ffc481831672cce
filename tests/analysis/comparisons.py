"""Runs written by hand, as training and measuring leave them, for tests of what is made of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cohort.analysis.findings import Entry, Findings
from cohort.analysis.measure import HELD_OUT, write_evaluation
from cohort.analysis.store import open_run
from cohort.types import Prompt, Request, Rollout, Segment

PROBLEMS = 30
SAMPLES = 8


def graded(
    rates: Sequence[float], *, samples: int = SAMPLES, seed: int = 0, ids: Sequence[str] | None = None
) -> list[Rollout]:
    """Completions of problems with given rates of success; correct ones are likelier, so that they can be told."""
    rng = np.random.default_rng(seed)
    out = []
    for p, rate in enumerate(rates):
        name = f"problem{p}" if ids is None else ids[p]
        prompt = Prompt(name, f"{name}?", (1,), name)
        for k in range(samples):
            right = bool(rng.random() < rate)
            tokens = tuple(int(t) for t in rng.integers(3, 9, size=4))
            logp = tuple(float(v) for v in -rng.exponential(0.2 if right else 0.6, size=4))
            request = Request(prompt, (1,), k, 8)
            text = "#### 1" if right else f"#### {int(rng.integers(2, 4))}"
            out.append(
                Rollout(
                    request,
                    (Segment(tokens, logp=logp, entropy=(0.5,) * 4),),
                    "finished" if k else "truncated",
                    text=text,
                    reward=float(right),
                    accuracy=float(right),
                )
            )
    return out


def write_run(
    folder: Path,
    *,
    method: str = "grpo",
    seed: int = 0,
    rate: float = 0.5,
    steps: int = 6,
    finished: bool = True,
    evaluations: Sequence[str] = (HELD_OUT,),
    **config: Any,
) -> Path:
    """A run whose held-out accuracy rises straight from 0.1 to `rate`, 100 tokens a step."""
    folder.mkdir(parents=True)
    known = {"method": method, "seed": seed, "steps": steps, "data": "train.jsonl", "eval_data": "test.jsonl", **config}
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": "tiny", "reward": ["number"], **known}))
    rows = []
    for step in range(1, steps + 1):
        value = 0.1 + (rate - 0.1) * step / steps
        row = {
            "step": step,
            "accuracy": value,
            "reward/mean": value,
            "reward/number": value,
            "reward/length": 0.5,
            "entropy": 1.0 / step,
            "completion/length_mean": 10.0,
            "tokens": 100 * step,
            "tokens_trained": 80 * step,
            "time/step": 0.5,
            "kl": None,
        }
        rows.append(row | ({"eval/accuracy": value} if step % 2 == 0 and step < steps else {}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if finished:
        summary = {
            "steps": steps,
            "stopped": False,
            "accuracy_before": 0.1,
            "accuracy_after": rate,
            "peak_memory": 10**8,
        }
        (folder / "summary.json").write_text(json.dumps(summary))
    rng = np.random.default_rng([1, seed])
    rates = np.clip(np.linspace(rate - 0.3, rate + 0.3, PROBLEMS) + rng.normal(0, 0.02, PROBLEMS), 0, 1)
    for name in evaluations:
        write_evaluation(folder, name, graded(rates, seed=seed), SAMPLES, {"data": name})
    return folder


def entry(root: Path, name: str, rates: list[float], **config: Any) -> Entry:
    """Runs of one method, a rate of success for each seed."""
    runs = {
        s: open_run(write_run(root / f"{name}-{s}", method=name, seed=s, rate=rate, **config))
        for s, rate in enumerate(rates)
    }
    return Entry(name, runs)


def contrast(findings: Findings, name: str, measure: str = "pass@1") -> str:
    """What is said of the difference of an entry to the first."""
    (found,) = [c.sentence for c in findings.contrasts if (c.entry, c.measure) == (name, measure)]
    return found
