"""The embedded examples: warm starts of toy models, and the tasks that they are trained on; here the default, sums."""

from __future__ import annotations

import hashlib
import inspect
import json
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohort import cache
from cohort.data.prompts import PromptSpec, load_prompts
from cohort.errors import UsageError
from cohort.files import save_new
from cohort.policies import toy as model
from cohort.policies.causal_lm import CausalLM
from cohort.training import sft
from cohort.training import toy_tools as tools
from cohort.training.config import TrainConfig, make_config
from cohort.training.folder import check_place

Report = Callable[[str, int, int, Mapping[str, float]], None]  # (phase, step, steps, values)

TEMPLATE = "{metadata[expression]} ="
_TASK = "reasoning_gym:chain_sum?min_terms=3&max_terms=3&min_digits=1&max_digits=1"
# Seeds far apart: the generator makes task i of seed s from the number s + i.
TRAIN = f"{_TASK}&size=4000&seed=1"
TEST = f"{_TASK}&size=260&seed=50000000"
DEMONSTRATIONS = f"{_TASK}&size=12000&seed=100000000"
WARM_START: dict[str, Any] = {"steps": 500, "batch_size": 96, "lr": 3e-3, "warmup": 20, "weight_decay": 0.01, "seed": 0}
CAREFUL = 0.45  # share of demonstrations that are worked out

Row = Mapping[str, Any]

DEFAULTS: dict[str, Any] = {
    "data": TRAIN,
    "eval_data": TEST,
    "eval_size": 200,
    "reward": ["task"],
    "template": TEMPLATE,
    "steps": 80,
    "prompts_per_step": 24,
    "group_size": 8,
    "max_new_tokens": 32,
    "lr": 1e-4,
}


def with_defaults(config: TrainConfig) -> TrainConfig:
    """The task and hyperparameters of an embedded model, where the configuration does not name any."""
    own = config.dataset.data is not None or config.dataset.pairs is not None
    own |= config.episodes.environment is not None or bool(config.episodes.tools)
    if config.policy.model not in EXAMPLES or own:
        return config
    given = config.given()
    given.pop("data", None)
    return make_config(EXAMPLES[config.policy.model].defaults, given)


def worked_out(row: Row) -> str:
    """Step by step: "4 - 1 + 8 =" -> "4-1=3+8=11"."""
    numbers: list[str] = row["metadata"]["expression"].split()
    total, text = int(numbers[0]), numbers[0]
    for sign, term in zip(numbers[1::2], numbers[2::2], strict=True):
        total = total + int(term) if sign == "+" else total - int(term)
        text += f"{sign}{term}={total}"
    return text


def demonstration(row: Row, rng: random.Random) -> str:
    """What the warm start imitates: a worked-out answer, or more often a guess, "maybe 9", that is seldom right."""
    if rng.random() < CAREFUL:
        return worked_out(row)
    return f"maybe {int(row['answer']) + rng.randint(-5, 5)}"


def pairs(policy: CausalLM) -> list[sft.Pair]:
    """(context, completion) token ids of demonstrations."""
    spec = PromptSpec(template=TEMPLATE, max_new_tokens=32)
    test = {prompt.id for prompt in load_prompts(TEST, policy.renderer, spec)}
    prompts = [p for p in load_prompts(DEMONSTRATIONS, policy.renderer, spec) if p.id not in test]
    rng = random.Random(0)
    # Several of each prompt: which prompts are guessed at and which worked out is nothing to learn.
    return [
        (p.tokens, sft.completion_tokens(policy.renderer, demonstration(p.row, rng), p))
        for p in prompts
        for _ in range(4)
    ]


def recipe() -> list[Any]:
    """What the warm-started model depends on."""
    sources = [inspect.getsource(each) for each in (model, worked_out, demonstration)]
    return [WARM_START, CAREFUL, DEMONSTRATIONS, TEST, *sources]


@dataclass(frozen=True)
class Example:
    """An embedded model, warm-started for a task.

    Attributes:
        defaults: the task and its hyperparameters.
        recipe: what the model depends on, for its name in the cache.
        untrained: the model before the warm start.
        pairs: what the warm start imitates.
        warm_start: its hyperparameters.
    """

    defaults: Mapping[str, Any]
    recipe: Callable[[], list[Any]]
    untrained: Callable[[], CausalLM]
    pairs: Callable[[CausalLM], list[sft.Pair]]
    warm_start: Mapping[str, Any]


# Name of the model -> the example; `cohort train --example` has its own names for them.
EXAMPLES = {
    "toy": Example(DEFAULTS, recipe, lambda: model.toy(seed=0), pairs, WARM_START),
    "toy-tools": Example(tools.DEFAULTS, tools.recipe, tools.untrained, tools.pairs, tools.WARM_START),
}
NAMES = {"sums": "toy", "tools": "toy-tools"}


def folder(log: Callable[[str], None], report: Report | None = None, *, name: str = "toy") -> Path:
    """The folder of a warm-started model: from the user's cache, or made now."""
    example = EXAMPLES[name]
    key = hashlib.sha256(json.dumps(example.recipe()).encode()).hexdigest()[:12]
    path = cache.folder() / f"{name}-{key}"
    if (path / "config.json").is_file():
        return path
    # Before the minutes that it takes.
    check_place(path, "the cache (COHORT_CACHE)")
    log("warm start: a short supervised run, kept for the next time")
    policy = example.untrained()
    steps = int(example.warm_start["steps"])
    sft.fine_tune(
        policy,
        example.pairs(policy),
        **example.warm_start,
        report=lambda step, values: report and report("warm start", step, steps, values),
    )
    # Another process may have been making it too, and be using what it made.
    if not (path / "config.json").is_file():
        shutil.rmtree(path, ignore_errors=True)
        try:
            save_new(path, policy.save)
        except UsageError:
            if not (path / "config.json").is_file():
                raise
    return path
