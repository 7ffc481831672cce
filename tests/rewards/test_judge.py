"""Functions of the user's that judge rollouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cohort.batch import Prompt
from cohort.errors import UsageError
from cohort.rewards.judge import ask, load_judge
from cohort.rewards.scorer import RewardError

PROMPTS = [Prompt("a", "A?", (1,), "A?", {"answer": "1", "level": 2}), Prompt("b", "B?", (2,), "B?", {"answer": "2"})]


def test_a_judge_gets_prompts_texts_and_the_columns_that_it_names(tmp_path: Path) -> None:
    file = tmp_path / "judge.py"
    file.write_text(
        "def given(prompts, first, answer, level):\n    return list(zip(prompts, first, answer, level))\n\n"
        "async def later(first, **columns):\n    return [sorted(columns) for _ in first]\n"
    )
    assert ask(f"{file}:given", PROMPTS, first=["x", "y"], second=["u", "v"]) == [
        ("A?", "x", "1", 2),
        ("B?", "y", "2", None),
    ]
    assert ask(f"{file}:later", PROMPTS, first=["x", "y"]) == [["answer", "level", "prompts"]] * 2
    assert ask(lambda first: [text.upper() for text in first], PROMPTS, first=["x", "y"]) == ["X", "Y"]
    assert ask(f"{file}:given", []) == []
    assert load_judge(f"{file}:given") is load_judge(f"{file}:given")


def test_what_a_judge_does_wrong_is_said(tmp_path: Path) -> None:
    def fails(prompts: list[Any]) -> list[Any]:
        raise KeyError("score")

    with pytest.raises(RewardError, match=r"the judge fails failed: KeyError: 'score'"):
        ask(fails, PROMPTS)
    with pytest.raises(RewardError, match="returned 1 verdicts for 2 questions"):
        ask(lambda prompts: [0], PROMPTS)
    with pytest.raises(UsageError, match=r"judge 'better': name a function of yours as path/to/file.py:function"):
        load_judge("better")
    with pytest.raises(UsageError, match=r"judge 'none.py:f': there is no file none.py"):
        load_judge("none.py:f")
    file = tmp_path / "empty.py"
    file.write_text("")
    with pytest.raises(UsageError, match="has no function 'f'"):
        load_judge(f"{file}:f")
