"""A run's folder as the trainer leaves it, made of random numbers that agree with each other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

WORDS = ["so", " the", " sum", " of", " 1", "2", " and", " 3", " is", "\n", " ", "=", " wait", ",", " check", "."]


def write_run(
    folder: Path,
    *,
    steps: int = 4,
    groups: int = 3,
    group_size: int = 4,
    length: int = 12,
    recorded: int | None = None,
    method: str = "grpo",
    seed: int = 0,
    finished: bool = True,
    **config: object,
) -> Path:
    """Write a run.

    Args:
        length: mean tokens of a rollout; the last of each group is cut at twice that.
        recorded: groups of a step whose tokens have numbers; None: all.
        config: further keys of config.yaml.
    """
    random = np.random.default_rng(seed)
    (folder / "rollouts").mkdir(parents=True)
    settings = {"method": method, "model": "toy", "steps": steps, "group_size": group_size, "lr": 1e-5, "seed": seed}
    (folder / "config.yaml").write_text(yaml.safe_dump({**settings, **config}), encoding="utf-8")
    with (folder / "metrics.jsonl").open("w", encoding="utf-8") as file:
        for step in range(1, steps + 1):
            rewards = write_step(folder, step, random, groups, group_size, length, recorded)
            file.write(json.dumps(metrics_row(step, random, rewards, length)) + "\n")
    if finished:
        (folder / "summary.json").write_text(
            json.dumps({"steps": steps, "accuracy_before": 0.1, "accuracy_after": 0.6}), encoding="utf-8"
        )
    return folder


def metrics_row(step: int, random: np.random.Generator, rewards: np.ndarray, length: int) -> dict[str, float | None]:
    """One line of metrics.jsonl."""
    noise = random.random(20)
    return {
        "step": step,
        "tokens": step * rewards.size * length,
        "reward/mean": float(rewards.mean()),
        "reward/task": float(rewards.mean()),
        "reward/brevity": float(noise[0]),
        "accuracy": float((rewards >= 1).mean()),
        "entropy": 1.0 / (1 + 0.01 * step) + 0.02 * noise[1],
        "kl": 0.01 * noise[2],
        "loss": 0.1 * noise[3] - 0.05,
        "loss/policy": 0.1 * noise[4],
        "loss/kl": 0.01 * noise[5],
        "grad_norm": noise[6],
        "clip_fraction": 0.1 * noise[7],
        "advantage/abs_mean": noise[8],
        "zero_signal_groups": noise[9],
        "mismatch": 1e-5 * noise[10],
        "mismatch_max": 1e-4 * noise[11],
        "completion/length_mean": length + noise[12],
        "completion/truncated": 0.1 * noise[13],
        "rollouts/sampled": rewards.size,
        "rollouts/trained": rewards.size,
        "lr": 1e-5,
        "skipped_updates": 0,
        "eval/accuracy": float(noise[14]) if step % 5 == 0 else None,
        "time/sample": 1.0,
        "time/reward": 0.1,
        "time/score": 0.2,
        "time/update": 0.7,
        "time/step": 2.0,
    }


def write_step(
    folder: Path, step: int, random: np.random.Generator, groups: int, size: int, length: int, recorded: int | None
) -> np.ndarray:
    """The rollouts of a step; the first group has no signal, the second carries the word `needle` at step 3."""
    count = groups * size
    group = np.repeat(np.arange(groups), size)
    task = random.integers(0, 2, count).astype(float)
    task[group == 0] = 1.0
    task[size::size] = 0.0
    task[size + 1 :: size] = 1.0
    brevity = np.where(group == 0, 0.5, random.random(count).round(3))
    reward = task + 0.2 * brevity
    lengths = random.integers(max(3, length - 3), length + 4, count)
    lengths[size - 1 :: size] = 2 * length
    kept = np.ones(count, dtype=bool) if recorded is None else group < recorded
    tokens = [random.integers(0, len(WORDS), n) for n in lengths]
    texts = ["".join(WORDS[token] for token in each) for each in tokens]
    if step == 3 and groups > 1:
        texts[size] += " NEEDLE"
    advantage = reward - np.array([reward[group == g].mean() for g in range(groups)])[group]

    def lists(make: object) -> pa.Array:
        values = [make(i, int(lengths[i])) if kept[i] else None for i in range(count)]  # type: ignore[operator]
        return pa.array(values, pa.list_(pa.float32()))

    sampled = [-random.random(n) * 3 for n in lengths]
    moved = [0.3 * random.standard_normal(n) for n in lengths]
    columns = {
        "group": pa.array(group, pa.int32()),
        "prompt_id": [f"prompt-{(step + g) % 50}" for g in group],
        "prompt": [f"What is {step} + {g}?" for g in group],
        "completion": texts,
        "reward": pa.array(reward, pa.float32()),
        "accuracy": pa.array(task, pa.float32()),
        "finished": [bool(n < 2 * length) for n in lengths],
        "trained": [bool(g != groups - 1) for g in group],
        "kept": ["trained" if g != groups - 1 else "filter before the advantage: dynamic_sampling" for g in group],
        "length": pa.array(lengths - 1, pa.int32()),
        "advantage_mean": pa.array(np.where(group != groups - 1, advantage, np.nan), pa.float32(), from_pandas=True),
        "reward/task": pa.array(task, pa.float32()),
        "reward/brevity": pa.array(brevity, pa.float32()),
        "tokens": pa.array(tokens, pa.list_(pa.int32())),
        "mask": pa.array([[int(i > 0) for i in range(n)] for n in lengths], pa.list_(pa.int8())),
        "sampler_logp": pa.array([each + 1e-5 for each in sampled], pa.list_(pa.float32())),
        "old_entropy": lists(lambda i, n: random.random(n)),
        "base_advantage": lists(lambda i, n: np.full(n, advantage[i])),
        "old_logp": lists(lambda i, n: sampled[i]),
        "logp": lists(lambda i, n: sampled[i] + moved[i]),
        "ref_logp": lists(lambda i, n: sampled[i] - 0.1),
        "ratio": lists(lambda i, n: np.exp(moved[i])),
        "clipped": lists(lambda i, n: (np.abs(moved[i]) > 0.25).astype(float)),
        "advantage": lists(lambda i, n: np.full(n, advantage[i])),
        "policy_gradient": lists(lambda i, n: -advantage[i] * np.exp(moved[i]) / n),
        "pieces": pa.array(
            [[WORDS[t] for t in each] if keep else None for each, keep in zip(tokens, kept, strict=True)]
        ),
    }
    pq.write_table(pa.table(columns), folder / "rollouts" / f"step-{step:06d}.parquet", compression="zstd")
    return reward
