"""Runs as the trainer stores them, made up: a simulated policy that learns sums, healthy unless told otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

Course = Callable[[float], float]  # progress in [0, 1] -> value


def line(start: float, end: float) -> Course:
    """From start to end."""
    return lambda t: start + (end - start) * t


@dataclass
class Shape:
    """What a run looks like.

    Attributes:
        accuracy, entropy, kl, grad_norm, right_logp, wrong_logp: over the run's progress; kl None: no reference.
        length: words put before each sum.
        hardness: parameters of the beta distribution that prompts' chances spread in; small is uneven.
        components: name -> (weight, f(random, right [N], lengths [N], t) -> [N]); the first one is the verdict.
        spread: standard deviation of log ratios; 0 for one update a step.
        shift: mean of log ratios.
        false_sums: share of right rollouts with a false equation.
        truncated: share of rollouts at the token limit.
        mismatch: of engine and trainer.
        held_out: accuracy on held-out prompts; None: there are none.
        config: further keys of config.yaml.
        metrics: further metrics, over the run's progress; None leaves one out.
        columns: f(columns of a step, t, random) -> None, changes them in place.
    """

    steps: int = 50
    groups: int = 12
    size: int = 8
    accuracy: Course = field(default_factory=lambda: line(0.3, 0.7))
    hardness: float = 6.0
    entropy: Course = field(default_factory=lambda: line(0.3, 0.12))
    length: Course = field(default_factory=lambda: line(0, 0))
    kl: Course | None = field(default_factory=lambda: line(0.0, 0.12))
    grad_norm: Course = field(default_factory=lambda: line(0.6, 1.1))
    right_logp: Course = field(default_factory=lambda: line(-0.3, -0.1))
    wrong_logp: Course = field(default_factory=lambda: line(-0.5, -0.25))
    components: Mapping[str, tuple[float, Callable[..., Any]]] = field(
        default_factory=lambda: {"number": (1.0, lambda random, right, lengths, t: right)}
    )
    spread: float = 0.0
    shift: float = 0.0
    false_sums: Course = field(default_factory=lambda: line(0.0, 0.0))
    truncated: Course = field(default_factory=lambda: line(0.0, 0.01))
    mismatch: float = 1e-7
    held_out: Course | None = field(default_factory=lambda: line(0.3, 0.7))
    record_every: int = 5
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Course | None] = field(default_factory=dict)
    columns: Callable[[dict[str, Any], float, np.random.Generator], None] = lambda columns, t, random: None


def write_run(folder: Path, shape: Shape, seed: int = 0) -> Path:
    """Write the run's folder."""
    random = np.random.default_rng(seed)
    (folder / "rollouts").mkdir(parents=True)
    reward = [
        f"{weight:g}*{'' if i == 0 else 'own.py:'}{name}"
        for i, (name, (weight, _)) in enumerate(shape.components.items())
    ]
    config = {
        "method": "grpo",
        "reward": reward,
        "steps": shape.steps,
        "group_size": shape.size,
        "max_new_tokens": 64,
        "temperature": 1.0,
        "top_p": 1.0,
        "updates": 1 if not shape.spread else 4,
        "epochs": 1,
        "lr": 1e-5,
        "dtype": "auto",
        "device": "auto",
        "eval_size": 200,
        "accuracy": None,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, **shape.config}))
    rows = []
    for step in range(1, shape.steps + 1):
        t = (step - 1) / max(1, shape.steps - 1)
        stored = bool(shape.record_every) and step % shape.record_every == 0
        columns = rollouts(shape, t, random, step, lists=stored)
        shape.columns(columns, t, random)
        rows.append(metrics(shape, t, random, step, columns))
        if stored:
            pq.write_table(table(columns), folder / "rollouts" / f"step-{step:06d}.parquet", compression="zstd")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if shape.held_out is not None:
        summary = {"steps": shape.steps, "accuracy_before": shape.held_out(0.0), "accuracy_after": shape.held_out(1.0)}
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def rollouts(shape: Shape, t: float, random: np.random.Generator, step: int, *, lists: bool) -> dict[str, Any]:
    """Columns of a step's rollouts; those with a list a rollout only where they are asked for."""
    count = shape.groups * shape.size
    group = np.repeat(np.arange(shape.groups), shape.size)
    mean = float(np.clip(shape.accuracy(t), 1e-3, 1 - 1e-3))
    chance = random.beta(mean * shape.hardness, (1 - mean) * shape.hardness, shape.groups)[group]
    right = (random.random(count) < chance).astype(float)
    numbers = random.integers(1, 10, (shape.groups, 3))
    prompts = [f"{a} - {b} + {c} =" for a, b, c in numbers]
    padding = np.maximum(0, np.round(shape.length(t) * (1 + 0.1 * random.normal(size=count)))).astype(int)
    false = random.random(count) < shape.false_sums(t)
    off = random.choice([-3, -2, -1, 1, 2, 3], count)
    texts = []
    for i in range(count):
        a, b, c = numbers[group[i]]
        wrong = 0 if right[i] and not false[i] else off[i]
        texts.append("um " * padding[i] + f"{a}-{b}={a - b}+{c}={a - b + c + wrong}")
    written = [text.split() if padding[i] else list(text) for i, text in enumerate(texts)]
    lengths = np.array([len(tokens) + 1 for tokens in written])
    values = {name: np.asarray(f(random, right, lengths, t), dtype=float) for name, (_, f) in shape.components.items()}
    reward = sum(weight * values[name] for name, (weight, _) in shape.components.items())
    columns = {
        "group": group,
        "prompt_id": [f"{step}-{prompts[g]}-{g}" for g in group],
        "prompt": [prompts[g] for g in group],
        "completion": texts,
        "reward": reward,
        "accuracy": right,
        "finished": random.random(count) >= shape.truncated(t),
        "trained": np.ones(count, bool),
        "length": lengths,
        **{f"reward/{name}": value for name, value in values.items()},
    }
    return columns | tokens_of(shape, t, random, columns, written) if lists else columns


def tokens_of(
    shape: Shape, t: float, random: np.random.Generator, columns: Mapping[str, Any], written: list[list[str]]
) -> dict[str, Any]:
    """Columns with a list a rollout."""
    group, reward, right, lengths = (columns[name] for name in ("group", "reward", "accuracy", "length"))
    base = np.where(right > 0, shape.right_logp(t), shape.wrong_logp(t)) + 0.05 * random.normal(size=len(right))
    advantage = reward - (np.bincount(group, reward) / shape.size)[group]
    advantage = advantage / (np.sqrt(np.bincount(group, advantage**2) / shape.size)[group] + 1e-4)
    each, total = np.repeat(advantage, lengths), int(lengths.sum())
    logp = np.minimum(-1e-4, np.repeat(base, lengths) + 0.1 * random.normal(size=total))
    move = shape.shift + shape.spread * random.normal(size=total)
    stopped = ((each > 0) & (move > np.log(1.2))) | ((each < 0) & (move < np.log(0.8)))
    lists = {
        "mask": np.ones(total),
        "sampler_logp": logp,
        "logp": logp + move,
        "advantage": each,
        "policy_gradient": np.where(stopped & bool(shape.spread), 0.0, each),
    }
    tokens = [np.array([ord(word[0]) for word in words] + [1]) for words in written]
    cuts = np.cumsum(lengths)[:-1]
    out: dict[str, Any] = {name: np.split(values, cuts) for name, values in lists.items()}
    return out | {"tokens": tokens, "logp_mean": np.array([values.mean() for values in out["sampler_logp"]])}


def table(columns: Mapping[str, Any]) -> pa.Table:
    """Columns as the recorder writes them."""
    kinds = {"tokens": pa.int32(), "mask": pa.int8(), "group": pa.int32(), "length": pa.int32()}
    out = {}
    for name, values in columns.items():
        if isinstance(values, list) and isinstance(values[0], np.ndarray):
            offsets = np.concatenate([[0], np.cumsum([len(each) for each in values])]).astype(np.int32)
            out[name] = pa.ListArray.from_arrays(
                offsets, pa.array(np.concatenate(values)).cast(kinds.get(name, pa.float32()))
            )
        else:
            floats = isinstance(values, np.ndarray) and values.dtype.kind == "f"
            out[name] = pa.array(values, kinds.get(name, pa.float32() if floats else None))
    return pa.table(out)


def metrics(
    shape: Shape, t: float, random: np.random.Generator, step: int, columns: Mapping[str, Any]
) -> dict[str, Any]:
    """One line of metrics.jsonl."""
    reward, accuracy = np.asarray(columns["reward"]), np.asarray(columns["accuracy"])
    by_group = reward.reshape(shape.groups, -1)
    noise = 1 + 0.03 * random.normal(size=8)
    row: dict[str, Any] = {
        "step": step,
        "tokens": step * 1000,
        "reward/mean": float(reward.mean()),
        **{f"reward/{name}": float(np.mean(columns[f"reward/{name}"])) for name in shape.components},
        "accuracy": float(accuracy.mean()),
        "entropy": max(0.0, shape.entropy(t) * noise[0]),
        "zero_signal_groups": float((by_group.max(1) == by_group.min(1)).mean()),
        "completion/length_mean": float(np.mean(columns["length"])),
        "completion/truncated": float(1 - np.mean(columns["finished"])),
        "group/pass@1": float(accuracy.mean()),
        "group/pass@G": float(accuracy.reshape(shape.groups, -1).max(1).mean()),
        "logp/correct": shape.right_logp(t) * noise[4],
        "logp/wrong": shape.wrong_logp(t) * noise[5],
        "rollouts/sampled": float(len(reward)),
        "rollouts/trained": float(len(reward)),
        "loss": 0.01 * noise[1],
        "grad_norm": shape.grad_norm(t) * noise[2] ** 6,
        "clip_fraction": 0.0,
        "advantage/abs_mean": 0.8,
        "mismatch": shape.mismatch,
        "mismatch_max": 40 * shape.mismatch,
        "lr": 1e-5,
        "skipped_updates": 0,
        "time/step": 1.0,
    }
    if shape.kl is not None:
        row["kl"] = shape.kl(t) * noise[3]
    if shape.held_out is not None and step % 10 == 0:
        row["eval/accuracy"] = shape.held_out(t)
    for name, course in shape.metrics.items():
        row[name] = None if course is None else course(t)
    return row
