"""Thought dropout in supervised training: what is written, what is left out, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cohort.cli import app
from cohort.data.prompts import PromptSpec, read_source
from cohort.errors import UsageError
from cohort.signals.thoughts import skips_thought, tagged
from cohort.training.config import make_config
from cohort.training.sft import load_prompts_of_rows
from cohort.training.thoughts import with_thoughts
from cohort.types import Prompt
from tests.helpers import tiny_policy

ROWS = [{"prompt": f"q{i}", "thought": f"because {i}", "answer": str(i)} for i in range(40)]


def made(rows: list[dict[str, object]], dropout: float, seed: int = 0) -> list[Prompt]:
    policy = tiny_policy()
    source = read_source(rows, PromptSpec())
    prompts = load_prompts_of_rows(source, policy.renderer, PromptSpec())
    config = make_config({"seed": seed, "max_new_tokens": 6})
    return with_thoughts(config, policy, prompts, thought="thought", answer="answer", dropout=dropout, tag="answer")


def texts(rows: list[dict[str, object]], dropout: float, seed: int = 0) -> list[str]:
    return [str(prompt.row["answer"]) for prompt in made(rows, dropout, seed)]


def test_dropout_0_keeps_every_thought_and_1_none() -> None:
    assert texts(ROWS, 0.0) == [tagged(row["thought"], row["answer"]) for row in ROWS]
    assert all(text == tagged("\n\n", row["answer"]) for text, row in zip(texts(ROWS, 1.0), ROWS, strict=True))


def test_the_seed_decides_which_thoughts_are_left_out() -> None:
    first, again, other = (list(map(skips_thought, texts(ROWS, 0.5, seed))) for seed in (0, 0, 1))
    assert first == again != other
    assert 8 <= sum(first) <= 32


def test_the_model_writes_thoughts_that_are_missing() -> None:
    rows = [{**row, "thought": None if i % 2 else row["thought"]} for i, row in enumerate(ROWS[:6])]
    found = texts(rows, 0.0)
    assert found[::2] == [tagged(row["thought"], row["answer"]) for row in ROWS[:6:2]]
    assert all(
        text.startswith("<think>") and text.endswith(f"</think><answer>{i}</answer>") for i, text in enumerate(found)
    )
    assert len(set(found)) == 6
    assert texts(rows, 0.0) == found
    bare = [{"prompt": "q", "answer": "4"}]
    assert texts(bare, 1.0) == [tagged("\n\n", "4")]


def test_a_row_without_an_answer_is_refused() -> None:
    with pytest.raises(UsageError, match=r"row 2: there is no answer in column 'answer'.*--completion-field"):
        texts([ROWS[0], {"prompt": "q", "thought": "t", "answer": None}], 0.5)


def test_the_command_trains_on_them(tmp_path: Path) -> None:
    tiny_policy().save(tmp_path / "model")
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    how = ["--completion-field", "answer", "--thought-dropout", "0.5", "--steps", "2", "--batch-size", "4"]
    command = ["sft", "--model", str(tmp_path / "model"), "--data", str(data), *how]
    done = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "made")])
    assert done.exit_code == 0, done.output
    assert "of 40 thoughts are left out" in done.output
    assert (tmp_path / "made" / "config.json").is_file()
    refused = CliRunner().invoke(app, [*command, "--thought-dropout", "2", "--out", str(tmp_path / "more")])
    assert refused.exit_code != 0
    assert "thought-dropout" in refused.output
