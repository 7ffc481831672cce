"""Functions of the user's that judge rollouts."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from cohort.errors import UsageError
from cohort.rewards.calling import RewardError
from cohort.rewards.judge import LIMIT, ask, check_judge, load_judge
from cohort.types import Prompt

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


def test_a_judge_s_semaphores_and_clients_live_through_all_calls(tmp_path: Path) -> None:
    file = tmp_path / "pooled.py"
    file.write_text(
        "import asyncio\nroom = asyncio.Semaphore(1)\n\n\nasync def better(first):\n    async def one(text):\n"
        "        async with room:\n            await asyncio.sleep(0)\n            return id(asyncio.get_running_loop())\n"
        "    return await asyncio.gather(*map(one, first))\n"
    )
    calls = [ask(f"{file}:better", PROMPTS, first=["x", "y"]) for _ in range(3)]
    assert len({loop for call in calls for loop in call}) == 1


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (None, "returned NoneType, not a list"),
        ({"a": 0, "b": 1}, "returned dict, not a list"),
        ("01", "returned str, not a list"),
        (itertools.count(), "returned more than 2 verdicts for 2 questions"),
    ],
)
def test_verdicts_that_are_no_list_are_refused(verdicts: Any, said: str) -> None:
    with pytest.raises(RewardError, match=said):
        ask(lambda prompts: verdicts, PROMPTS)


def test_a_judge_that_leaves_does_not_end_the_run() -> None:
    async def leaves(prompts: list[Any]) -> list[Any]:
        raise SystemExit(3)

    with pytest.raises(RewardError, match="the judge leaves failed: SystemExit: 3"):
        ask(leaves, PROMPTS)


@pytest.mark.parametrize(
    "body",
    [
        "def better(prompts):\n    time.sleep(60)\n",
        "def better(prompts):\n    while True:\n        pass\n",
        "def better(prompts):\n    while True:\n        try:\n            time.sleep(60)\n"
        "        except Exception:\n            pass\n",
        "def better(prompts):\n    while True:\n        yield from ()\n",
        "async def better(prompts):\n    await asyncio.sleep(60)\n",
        "async def better(prompts):\n    time.sleep(60)\n",
    ],
)
def test_a_judge_that_takes_too_long_is_named(tmp_path: Path, body: str) -> None:
    file = tmp_path / "slow.py"
    file.write_text(f"import asyncio\nimport time\n\n\n{body}")
    before = LIMIT.set(0.2)
    try:
        with pytest.raises(
            RewardError, match=r"the judge .*slow.py:better' gave no verdicts for 2 questions within 0.2 s"
        ):
            ask(f"{file}:better", PROMPTS)
    finally:
        LIMIT.reset(before)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert ask(lambda prompts: [0, 1], PROMPTS) == [0, 1]


def test_a_judge_does_not_end_the_process_when_it_is_imported_or_called(tmp_path: Path) -> None:
    file, leave = tmp_path / "leaves.py", os._exit
    for status in ("os._exit(0)", "os._exit(3)", "sys.exit()"):
        file.write_text(f"import os\nimport sys\n\n{status}\n")
        with pytest.raises(UsageError, match=r"leaves.py cannot be imported: SystemExit: .*\(line 4\)"):
            load_judge(f"{file}:better")

    def leaves(prompts: list[Any]) -> list[Any]:
        os._exit(0)

    def forks(prompts: list[Any]) -> list[Any]:
        child = os.fork()
        if child == 0:
            os._exit(7)
        return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])] * len(prompts)

    with pytest.raises(RewardError, match=r"the judge leaves failed: SystemExit: os._exit\(0\)"):
        ask(leaves, PROMPTS)
    assert ask(forks, PROMPTS) == [7, 7]
    assert os._exit is leave


def test_what_a_judge_asks_for_must_be_there() -> None:
    def asks(prompts: list[Any], first: list[str], hardness: list[int]) -> list[int]:
        return []

    check_judge(asks, ["first", "second"], ["hardness"])
    with pytest.raises(
        UsageError, match="the judge asks asks for 'hardness', which is not available: there are prompts, fi"
    ):
        check_judge(asks, ["first", "second"], ["answer"])
