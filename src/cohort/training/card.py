"""The model card that a run's model comes with: what it was made of, and how it did."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cohort.analysis.configuration import EMBEDDED
from cohort.training.config import TrainConfig
from cohort.training.evaluate import Evaluation

# Of the last step's metrics, those that say how the run ended, where it has them.
SHOWN = ("reward/mean", "accuracy", "entropy", "kl", "loss", "margin", "completion/length_mean", "completion/truncated")
# Keys with an option of their own that everyone knows; the others are given with --set.
OPTIONS = ("model", "data", "pairs", "reward", "eval_data", "steps", "seed")


def card(
    config: TrainConfig,
    name: str,
    metrics: Sequence[Mapping[str, Any]],
    *,
    verdict: str,
    after: Evaluation | None = None,
) -> str:
    """README.md of a run's model.

    Args:
        name: of the run.
        metrics: one mapping a step.
        verdict: what the share of correct rollouts is called.
        after: held-out evaluation of the model.
    """
    plain = config.plain()
    about: dict[str, Any] = {
        "library_name": "peft" if config.policy.lora else "transformers",
        "tags": ["cohort", "reinforcement-learning"],
    }
    # A path of this machine means nothing to others.
    base = str(plain["model"])
    if base not in EMBEDDED and not base.startswith("<") and not Path(base).expanduser().exists():
        about["base_model"] = base
    facts = {
        "method": config.method,
        "base model": base,
        "data": plain["data"],
        "pairs": plain["pairs"],
        "rewards": ", ".join(plain["reward"]),
        "held-out data": plain["eval_data"],
        "steps": len(metrics),
        "seed": config.seed,
    }
    lines = ["---", yaml.safe_dump(about, sort_keys=False).strip(), "---", "", f"# {name}", ""]
    lines += [
        f"A {'LoRA adapter' if config.policy.lora else 'model'} that cohort trained by reinforcement learning.",
        "",
    ]
    lines += _table({key: f"`{_cell(value)}`" for key, value in facts.items() if value not in (None, "")})
    if metrics:
        last = metrics[-1]
        rewards = sorted(key for key in last if key.startswith("reward/") and key != "reward/mean")
        found = {verdict if key == "accuracy" else key: last.get(key) for key in (*SHOWN, *rewards)}
        numbers = {key: f"{value:.4g}" for key, value in found.items() if isinstance(value, int | float)}
        lines += [f"Metrics of step {last['step']}, the last one, over the completions it had:", "", *_table(numbers)]
    if after is not None:
        lines += [f"On {after.problems} held-out prompts (greedy): {after.headline}.", ""]
    lines += ["The command that trains it (whose every value `config.yaml` of the run holds):", "", "```sh"]
    return "\n".join([*lines, command(config), "```", ""])


def command(config: TrainConfig) -> str:
    """`cohort train` with everything that differs from the defaults, but where it writes."""
    plain, usual = config.plain(), TrainConfig().plain()
    words = ["cohort", "train", config.method]
    for key in OPTIONS:
        values = plain[key] if isinstance(plain[key], list) else [plain[key]]
        if plain[key] != usual[key]:
            words += [word for value in values for word in (f"--{key.replace('_', '-')}", str(value))]
    for key, value in plain.items():
        if key not in (*OPTIONS, "method", "out") and value != usual[key]:
            # JSON is YAML, on one line.
            words += ["--set", f"{key}={json.dumps(value, ensure_ascii=False)}"]
    return shlex.join(words)


def _table(rows: Mapping[str, str]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {_cell(name)} | {text} |" for name, text in rows.items()), ""]


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
