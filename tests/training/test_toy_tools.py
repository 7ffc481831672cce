"""The embedded example with tools: what its warm start imitates, and how it is named."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from cohort.data.prompts import PromptSpec, load_prompts
from cohort.environments.tools import ToolEnvironment, schemas
from cohort.training import toy, toy_tools
from cohort.training.config import make_config
from tests.cli.command import run as cohort_command

ROW = {"metadata": {"expression": "42 * 25"}, "answer": "1050"}


def test_demonstrations_give_up_call_rightly_call_wrongly_and_break_calls() -> None:
    rng = random.Random(0)
    found = {toy_tools.demonstration(ROW, rng) for _ in range(200)}
    assert found == {
        ("no idea", ""),
        ("<call>mul(42,25)</call>", "1050"),
        ("<call>add(42,25)</call>", "67"),
        ("<call>mul(42,25</call>", "no idea"),
    }


def test_what_it_says_is_what_its_environment_reads() -> None:
    renderer, tools = toy_tools.untrained().renderer, schemas(toy_tools.FUNCTIONS)
    step = ToolEnvironment(toy_tools.FUNCTIONS).step(renderer.message("<call>mul(42,25)</call>", tools))
    assert step.observation.content == [{"role": "tool", "name": "mul", "content": "1050", "tool_call_id": "call00000"}]
    broken = ToolEnvironment(toy_tools.FUNCTIONS).step(renderer.message("<call>mul(42,25</call>", tools))
    assert broken.observation.content[0]["failed"]


@pytest.mark.parametrize("order", [1, -1])
def test_prompts_name_the_tools_in_one_order_and_do_not_describe_them(order: int) -> None:
    tools = {"": schemas(toy_tools.FUNCTIONS)[::order]}
    spec = PromptSpec(template=toy_tools.TEMPLATE, by_row=True, tools=tools)
    (prompt,) = load_prompts([ROW], toy_tools.untrained().renderer, spec)
    assert prompt.text == "<|system|>mul add <|user|>42 * 25 =<|assistant|>"


def test_an_example_brings_its_task_unless_another_is_given() -> None:
    made = toy.with_defaults(make_config({"model": "toy-tools", "steps": 3}))
    assert made.episodes.tools == toy_tools.DEFAULTS["tools"]
    assert (made.optimisation.steps, made.dataset.data) == (3, toy_tools.TRAIN)
    own = make_config({"model": "toy-tools", "tools": ["mine.py:f"]})
    assert toy.with_defaults(own) is own
    assert set(toy.NAMES.values()) == set(toy.EXAMPLES)


def test_an_example_that_there_is_not_and_one_beside_a_model_are_refused() -> None:
    for options, said in (
        (["--example", "sum"], "--example 'sum': there are sums, tools"),
        (["--example", "tools", "--model", "toy"], "--example brings a model of its own: leave --model out"),
    ):
        status, _, err = cohort_command("train", *options)
        assert status == 2
        assert said in " ".join(err.split())


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the warm start, here a few steps, to the problems held out; tests/training/test_learning.py has the whole of it."""
    monkeypatch.setenv("COHORT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(toy_tools, "DEMONSTRATIONS", toy_tools.DEMONSTRATIONS.replace("size=6000", "size=100"))
    example = toy.EXAMPLES["toy-tools"]
    monkeypatch.setitem(
        toy.EXAMPLES, "toy-tools", replace(example, warm_start={**example.warm_start, "steps": 6, "warmup": 2})
    )
    small = ("--prompts-per-step", "4", "--group-size", "4", "--max-new-tokens", "48", "--set", "eval_size=4")
    out = tmp_path / "run"
    status, said, err = cohort_command("train", "--example", "tools", "--steps", "2", *small, "--out", str(out))
    assert status == 0, err
    assert "unseen problems" in said
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["rollouts/sampled"] for row in metrics] == [16.0, 16.0]
    assert all(row["tools/calls_mean"] >= 0 and row["episode/failed"] == 0 for row in metrics)
    assert json.loads((out / "summary.json").read_text())["steps"] == 2
