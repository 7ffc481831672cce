"""Reward functions in a run: what they are told, what of theirs is recorded, and what is refused before it begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from cohort.analysis.store import open_run
from cohort.doctor.record import Record
from cohort.errors import UsageError
from cohort.training import recorder as recording
from cohort.training.config import make_config
from cohort.training.display import PRINTED, Display
from cohort.training.recorder import Recorder
from cohort.training.run import apart, train
from cohort.training.table import _logged
from cohort.viewer.query import describe

LOGGING = """
import asyncio

room = asyncio.Semaphore(2)


def curriculum(completions, trainer_state, log_extra, log_metric, **columns):
    assert list(columns) == ["prompts", "completion_ids", "answer", "solution"], list(columns)
    step, steps = trainer_state.global_step, trainer_state.max_steps
    log_extra("completed", [step] * len(completions))
    log_extra("reward", [c.upper() for c in completions])
    log_metric("curriculum/step", step)
    log_metric("lr", 2)
    for i in range(9):
        print(f"line {i} of step {step}")
    return [step / steps] * len(completions)


async def judged(completions):
    async def one(text):
        async with room:
            await asyncio.sleep(0)
            return float(len(text) % 2)

    return await asyncio.gather(*map(one, completions))
"""


def test_a_run_tells_functions_where_it_stands_and_records_what_they_log(base: dict[str, Any], tmp_path: Path) -> None:
    file, screen = tmp_path / "mine.py", Console(record=True, file=(tmp_path / "screen").open("w"), width=200)
    file.write_text(LOGGING)
    held = [{"prompt": "9+9=", "answer": "18", "solution": "18"}]
    options = {"reward": [f"{file}:curriculum", f"{file}:judged"], "steps": 3, "eval_data": held, "eval_every": 2}
    result = train(make_config({**base, **options}), display=Display(console=screen))
    assert [row["curriculum/step"] for row in result.metrics] == [0, 1, 2]
    assert [row["logged/lr"] for row in result.metrics] == [2, 2, 2]
    assert [row["lr"] for row in result.metrics] == [1e-3] * 3
    assert [row.get("eval/curriculum/step") for row in result.metrics] == [None, 2, None]
    assert result.metrics[2]["reward/curriculum"] == pytest.approx(2 / 3)
    table = pq.read_table(result.folder / "rollouts" / "step-000002.parquet")
    assert table["completed"].to_pylist() == [1] * 12
    assert table["logged/reward"].to_pylist() == [text.upper() for text in table["completion"].to_pylist()]
    log = (result.folder / "rewards.log").read_text()
    assert "== step 3\nline 0 of step 2" in log
    assert "line 8 of step 2" in log
    shown = screen.export_text()
    assert "reward: line 8 of step 2" in shown
    assert "reward: line 0 of step 2" not in shown
    assert f"reward: ({9 - PRINTED} more lines before these: {result.folder}/rewards.log)" in shown


@pytest.mark.parametrize("eval_data", [None, [{"prompt": "a", "answer": "b"}]])
def test_arguments_that_nobody_gives_are_refused_before_the_model_is_loaded(
    base: dict[str, Any], eval_data: Any
) -> None:
    def asks(completions: list[str], hardness: list[int]) -> list[float]:
        return [0.0] * len(completions)

    data = base["data"] if eval_data is None else [{**row, "hardness": 1} for row in base["data"]]
    options = {"model": "/there/is/none", "reward": asks, "data": data, "eval_data": eval_data}
    with pytest.raises(
        UsageError, match="reward 'asks' asks for 'hardness', which is not available: there are prompts"
    ):
        train(make_config({**base, **options}), display=Display(quiet=True))


def test_what_a_judge_asks_for_is_checked_as_early(base: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "judge.py"
    file.write_text("def better(prompts, first, second, hardness):\n    return [0 for _ in first]\n")
    options = {"model": "/there/is/none", "method": f"pref-grpo(judge='{file}:better')"}
    with pytest.raises(
        UsageError, match="asks for 'hardness', which is not available: there are prompts, first, second"
    ):
        train(make_config({**base, **options}), display=Display(quiet=True))


def test_functions_with_weights_run_here_if_asked(base: dict[str, Any]) -> None:
    seen: list[str] = []

    def collects(completions: list[str]) -> list[float]:
        seen.extend(completions)
        return [float(len(text) % 2) for text in completions]

    config = make_config({**base, "reward": (0.5, collects), "steps": 1, "reward_process": "here"})
    result = train(config, display=Display(quiet=True))
    assert len(seen) == 12
    assert result.metrics[0]["reward/mean"] == pytest.approx(0.5 * result.metrics[0]["reward/collects"])
    assert "0.5*<Python function collects>" in (result.folder / "config.yaml").read_text()


def test_a_composed_reward_is_recorded_and_resumed_exactly(base: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "def even(completions):\n    return [float(len(c) % 2 == 0) for c in completions]\n\n"
        "def size(completions):\n    return [float(len(c)) for c in completions]\n"
    )
    options = {
        "method": "gdpo",
        "reward": [f"{file}:even", f"big={file}:size"],
        "reward_gate": "big if even else -1",
        "reward_clip": ["big 0..2"],
        "reward_schedule": ["big 1:0 3:1"],
        "checkpoint.every": 2,
    }
    whole = train(
        make_config({**base, **options, "steps": 4, "out": str(tmp_path / "whole")}), display=Display(quiet=True)
    )
    assert [row["weight/big"] for row in whole.metrics] == [0.0, 0.0, 0.5, 1.0]
    table = pq.read_table(whole.folder / "rollouts" / "step-000003.parquet").to_pydict()
    lengths = [float(len(text)) for text in table["completion"]]
    assert table["raw/big"] == lengths
    assert table["reward/big"] == [min(n, 2.0) if n % 2 == 0 else -1.0 for n in lengths]
    assert table["reward"] == [e + 0.5 * b for e, b in zip(table["reward/even"], table["reward/big"], strict=True)]
    row = whole.metrics[2]
    assert row["raw/big"] == pytest.approx(sum(lengths) / len(lengths))
    assert row["closed/big"] == pytest.approx(sum(n % 2 for n in lengths) / len(lengths))
    # The viewer and the doctor see what counts and what was given, and the weights of the end.
    stored = pq.read_table(whole.folder / "rollouts" / "step-000003.parquet")
    shown = describe(stored, 3, list(range(stored.num_rows)))
    assert [each["raw"] for each in shown] == [{"big": n} for n in lengths]
    assert [each["components"]["big"] for each in shown] == table["reward/big"]
    assert Record("whole", open_run(whole.folder).config, whole.metrics).weights == {"even": 1.0, "big": 1.0}
    assert Record("whole", open_run(whole.folder).config, whole.metrics[:3]).weights == {"even": 1.0, "big": 0.5}
    # Stopped after two steps and gone on with: the same numbers.
    first = {**base, **options, "out": str(tmp_path / "parts")}
    train(make_config({**first, "steps": 2}), display=Display(quiet=True))
    resumed = train(make_config({**first, "steps": 4}), resume=True, display=Display(quiet=True))
    kept = ("reward/mean", "reward/big", "raw/big", "closed/big", "weight/big", "loss", "grad_norm")
    assert [[row[k] for k in kept] for row in resumed.metrics] == [[row[k] for k in kept] for row in whole.metrics]
    with pytest.raises(UsageError, match=r"reward_clip \(was \['big 0..2'\], now \[\]\)"):
        train(make_config({**first, "steps": 4, "reward_clip": []}), resume=True, display=Display(quiet=True))


def test_logged_columns_are_numbers_where_all_values_are_and_else_texts() -> None:
    assert str(_logged([1, None, 2]).type) == "int64"
    assert str(_logged([1, 0.5]).type) == "double"
    assert str(_logged([True, False]).type) == "bool"
    assert _logged([1, "a", None]).to_pylist() == ["1", "a", None]
    assert _logged(["\ud800"]).to_pylist() == ["?"]
    assert _logged([None]).to_pylist() == [None]


def test_logged_metrics_do_not_take_the_place_of_the_run_s_own() -> None:
    assert apart({"kl": 1.0, "step": 2, "mine": 3}, {"kl": 0.0}) == {"logged/kl": 1.0, "logged/step": 2, "mine": 3}


def test_the_log_of_rewards_is_bounded(base: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "LOG_LIMIT", 1000)
    recorder = Recorder(tmp_path, make_config(base), start=0)
    recorder.printed("step 1", "")
    assert not recorder.reward_log.exists()
    for step in range(100):
        recorder.printed(f"step {step}", "x" * 50 + "\n")
        assert recorder.reward_log.stat().st_size <= 1100
    assert recorder.reward_log.read_text().endswith("== step 99\n" + "x" * 50 + "\n")
    recorder.close()


def test_what_is_printed_cannot_disturb_the_screen(tmp_path: Path) -> None:
    screen = Console(record=True, file=(tmp_path / "screen").open("w"), width=300)
    Display(console=screen).printed("10%\r50%\r100%\n\x1b[2Jred [bold]not[/bold]\n" + "x" * 999 + "\n\n", "log")
    assert screen.export_text().split("\n")[:2] == ["  reward: 100%", "  reward: [2Jred [bold]not[/bold]"]
    assert max(map(len, screen.export_text().split("\n"))) < 220
