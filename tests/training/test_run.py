"""A run as a whole: what it writes, that it repeats itself, and that it survives."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml

from cohort.errors import StorageError, UsageError
from cohort.rewards.calling import RewardError
from cohort.training import checkpoint
from cohort.training import run as module
from cohort.training.config import make_config, read_config
from cohort.training.display import Display
from cohort.training.run import Diverged, Result, train

QUIET = Display(quiet=True)


def run(base: dict[str, Any], *, resume: bool = False, **changes: Any) -> Result:
    return train(make_config({**base, **changes}), resume=resume, display=Display(quiet=True))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "final" / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_run_folder_holds_what_is_documented(base: dict[str, Any]) -> None:
    kept = {"every": 2, "keep": 1}
    result = run(base, eval_data=base["data"][:5], eval_every=2, checkpoint=kept, tensorboard=True, record="tokens")
    folder = result.folder
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert "eval/accuracy" in rows[1]
    assert rows == result.metrics
    assert result.table().num_rows == 4
    summary = json.loads((folder / "summary.json").read_text())
    assert summary == result.summary
    assert {"steps", "sampled_tokens", "seconds", "accuracy_before", "accuracy_after"} <= set(summary)
    assert summary["steps"] == 4
    assert summary["sampled_tokens"] == rows[-1]["tokens"] > 0
    assert [p.name for p in (folder / "checkpoints").iterdir()] == ["step-000004"]
    assert (folder / "best" / "config.json").is_file()
    assert list((folder / "tensorboard").iterdir())
    table = pq.read_table(folder / "rollouts" / "step-000003.parquet")
    assert table.num_rows == 12
    assert {
        "prompt",
        "completion",
        "tokens",
        "sampler_logp",
        "logp",
        "reward",
        "reward/format",
        "reward/length",
        "advantage",
        "group",
        "mask",
        "accuracy",
        "finished",
    } <= set(table.column_names)
    for row in table.to_pylist():
        assert len(row["tokens"]) == len(row["mask"]) == len(row["advantage"]) == len(row["logp"])
        assert row["reward"] == pytest.approx(row["reward/format"] + 0.5 * row["reward/length"], abs=1e-6)
    assert (
        not {row["prompt_id"] for row in table.to_pylist()}
        & {  # held-out prompts are not trained on
            row["prompt_id"] for row in table.to_pylist() if row["prompt"] in {r["prompt"] for r in base["data"][:5]}
        }
    )


def test_the_resolved_configuration_runs_again(base: dict[str, Any], tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in base["data"]))
    first = run(base, data=str(rows), seed=7)
    stored = read_config(first.folder / "config.yaml")
    assert stored["seed"] == 7
    assert set(stored) == set(yaml.safe_load((first.folder / "config.yaml").read_text()))
    again = train(make_config(stored, {"out": str(tmp_path / "again")}), display=QUIET)
    assert same(weights(first.folder), weights(again.folder))


def test_the_same_seed_gives_the_same_run_and_another_seed_another(base: dict[str, Any], tmp_path: Path) -> None:
    first = run(base, updates=2)
    second = run(base, updates=2, out=str(tmp_path / "second"))
    other = run(base, updates=2, out=str(tmp_path / "other"), seed=1)
    assert same(weights(first.folder), weights(second.folder))
    assert not same(weights(first.folder), weights(other.folder))
    untimed = [
        [{k: v for k, v in row.items() if not k.startswith("time/")} for row in result.metrics]
        for result in (first, second)
    ]
    assert untimed[0] == untimed[1]


@pytest.mark.parametrize(
    "method",
    [
        "grpo",
        "fg-expo+knapsack+lion",
        "gtpo",
        "vas(refresh=2, scoring_rollouts=2)",
        "t-ppo(window=3)",
        "vade+xrpo(first=2)",
        "v0(updates=2)",
        "rest-grpo(samples=2, std_min=0.01, reward_min=0.5)",
        "fate(objectives=('format', 'length'), floors=(0.9,), candidates=2, pareto_steps=1, sft_coef=0.5)",
        "intervened-po(cue='.', triggers=('1', '2'), mine=1, samples=2, window=1, mu=0.0)",
        "faker-air(epoch_steps=2, unit=2, far='length')",
        "veripo(format=None, grpo_steps=1, dpo_steps=2, pairs=4)",
    ],
)
def test_a_stopped_run_continues_bit_for_bit(base: dict[str, Any], tmp_path: Path, method: str) -> None:
    """Stopped after a step by SIGINT, then resumed: final weights and metrics of the uninterrupted run."""
    handler = signal.getsignal(signal.SIGINT)
    whole = run(base, method=method, steps=5, out=str(tmp_path / "whole"))
    display = Display(quiet=True)
    display.step = lambda step, *a, **k: signal.raise_signal(signal.SIGINT) if step == 3 else None  # type: ignore[method-assign]
    stopped = train(make_config({**base, "method": method, "steps": 5}), display=display)
    assert stopped.stopped
    assert stopped.model is None
    assert stopped.summary["steps"] == 3
    assert [p.name for p in (stopped.folder / "checkpoints").iterdir()] == ["step-000003"]
    resumed = run(base, method=method, steps=5, resume=True)
    assert not resumed.stopped
    assert same(weights(whole.folder), weights(resumed.folder))
    assert [row["step"] for row in resumed.metrics] == [1, 2, 3, 4, 5]
    for a, b in zip(whole.metrics, resumed.metrics, strict=True):
        assert {k: v for k, v in a.items() if not k.startswith("time/")} == {
            k: v for k, v in b.items() if not k.startswith("time/")
        }
    assert signal.getsignal(signal.SIGINT) is handler


def test_resume_without_a_checkpoint_starts_afresh(base: dict[str, Any], tmp_path: Path) -> None:
    whole = run(base, out=str(tmp_path / "whole"))
    folder = Path(base["out"])
    folder.mkdir()
    (folder / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "rew')
    assert same(weights(whole.folder), weights(run(base, resume=True).folder))


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(base: dict[str, Any], tmp_path: Path) -> None:
    whole = run(base, steps=6, out=str(tmp_path / "whole"))
    first = run(base, steps=4, checkpoint={"every": 2, "keep": 3})
    newest = first.folder / "checkpoints" / "step-000004"
    data = bytearray((newest / "state.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (newest / "state.pt").write_bytes(bytes(data))
    said: list[str] = []
    display = Display(quiet=True)
    display.log = said.append  # type: ignore[method-assign]
    resumed = train(
        make_config({**base, "steps": 6, "checkpoint": {"every": 2, "keep": 3}}), resume=True, display=display
    )
    assert any("step-000004 is damaged (state.pt" in line for line in said)
    assert any("after step 2" in line for line in said)
    assert same(weights(whole.folder), weights(resumed.folder))


def test_another_configuration_does_not_continue_a_run(base: dict[str, Any]) -> None:
    run(base)
    with pytest.raises(UsageError, match=r"another configuration: lr \(was 0.001, now 0.002\)"):
        run(base, resume=True, lr=2e-3)
    with pytest.raises(UsageError, match="already holds something"):
        run(base)


REWARDS = """
calls = 0
def late(completions, **_):
    global calls
    calls += 1
    if calls > 2:
        raise KeyError("broken")
    return [float(len(c) % 2) for c in completions]
"""


def test_a_failing_reward_stops_the_run_with_everything_saved(base: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "rewards.py"
    file.write_text(REWARDS)
    with pytest.raises(RewardError) as caught:
        run(base, reward=f"{file}:late")
    message = str(caught.value)
    for part in ("'late'", "data, row ", "KeyError: 'broken'", "rewards.py"):
        assert part in message
    folder = Path(base["out"])
    assert [p.name for p in (folder / "checkpoints").iterdir()] == ["step-000002"]
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("how", ["zero", "skip"])
def test_a_run_can_go_on_without_rows_that_fail(base: dict[str, Any], tmp_path: Path, how: str) -> None:
    file = tmp_path / "rewards.py"
    file.write_text(
        "def odd(completions, **_):\n    return [1.0 if len(c) % 3 else float('nan') for c in completions]\n"
    )
    result = run(base, reward=f"{file}:odd", on_reward_error=how)
    assert len(result.metrics) == 4
    sampled = [row["rollouts/sampled"] for row in result.metrics]
    assert all(n == 12 for n in sampled) if how == "zero" else min(sampled) < 12


def test_updates_that_are_not_finite_are_skipped_and_three_in_a_row_stop_the_run(
    base: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cohort.axes import surrogate

    steps = {"count": 0}
    real = surrogate.clipped

    def poisoned(at: set[int]) -> Any:
        def clipped(*args: Any) -> torch.Tensor:
            steps["count"] += 1
            return real(*args) * (float("nan") if steps["count"] in at else 1.0)

        return clipped

    monkeypatch.setattr(surrogate, "clipped", poisoned({2, 3}))
    result = run(base, steps=5)
    assert result.summary["skipped_updates"] == 2
    assert all(torch.isfinite(w).all() for w in weights(result.folder).values())
    steps["count"] = 0
    monkeypatch.setattr(surrogate, "clipped", poisoned({2, 3, 4}))
    with pytest.raises(Diverged, match="3 updates in a row"):
        run(base, steps=8, out=str(tmp_path / "bad"))
    found = checkpoint.newest(tmp_path / "bad" / "checkpoints")
    assert found is not None
    assert found.name == "step-000004"


def test_graded_rewards_for_a_method_of_right_and_wrong_leave_no_folder(base: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"disco\(threshold=0.5\)"):
        run(base, method="disco", reward="0.3*format:.")
    assert not Path(base["out"]).exists()


def test_low_rank_adapters_train_save_and_resume(base: dict[str, Any], tmp_path: Path) -> None:
    whole = run(base, lora=2, method="grpo", out=str(tmp_path / "whole"))
    assert (whole.folder / "final" / "adapter_model.safetensors").is_file()
    shutil.copytree(whole.folder, base["out"])
    for late in (Path(base["out"]) / "checkpoints").iterdir():
        shutil.rmtree(late)
    half = run(base, lora=2, method="grpo", resume=True, checkpoint={"every": 2, "keep": 4})
    shutil.rmtree(half.folder / "checkpoints" / "step-000004")
    resumed = run(base, lora=2, method="grpo", resume=True, checkpoint={"every": 2, "keep": 4})
    from safetensors.torch import load_file

    assert same(*(load_file(r.folder / "final" / "adapter_model.safetensors") for r in (whole, resumed)))


def test_a_method_made_in_python_and_a_function_as_reward(base: dict[str, Any]) -> None:
    import cohort

    wanted = "3"
    result = cohort.train(
        cohort.method("dapo(dynamic_sampling=False)") | cohort.method("gdpo"),
        quiet=True,
        **{**base, "reward": [lambda completions, **_: [float(wanted in c) for c in completions], "length"]},
    )
    assert result.summary["method"] == "dapo(dynamic_sampling=False)+gdpo"
    assert "reward/<lambda>" in result.metrics[0]


def test_runs_without_a_folder_are_numbered(
    base: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = {**base, "out": None, "steps": 1}
    assert run(base).folder == Path("runs/grpo-tiny-1")
    assert run(base).folder == Path("runs/grpo-tiny-2")
    assert module.choose_folder(make_config(base), resume=True) == Path("runs/grpo-tiny-2")


def test_a_run_that_replays_corrects_and_continues_bit_for_bit(base: dict[str, Any], tmp_path: Path) -> None:
    """Groups of earlier steps stand in the checkpoint, and their tokens weigh what a correction makes of them."""
    keys = {**base, "steps": 4, "replay_groups": 2, "checkpoint": {"every": 2, "keep": 2}, "lr": 1e-2}
    whole = train(make_config({**keys, "out": str(tmp_path / "whole")}))
    half = train(make_config({**keys, "steps": 2}))
    assert half.summary["steps"] == 2
    resumed = train(make_config(keys), resume=True)
    first, second = (Path(r.folder, "final", "model.safetensors").read_bytes() for r in (whole, resumed))
    assert first == second
    rows = whole.metrics
    assert "correction/weight_mean" in rows[0]
    assert rows[0]["correction/weight_mean"] == pytest.approx(1.0, abs=1e-4)
    assert abs(rows[3]["correction/weight_mean"] - 1.0) > 1e-4
    # Engine and trainer are compared on what the present weights drew, and metrics speak of these alone.
    assert all(row["mismatch_max"] < 1e-3 for row in rows)
    assert [row["rollouts/sampled"] for row in rows] == [12.0] * 4
    assert rows[3]["rollouts/trained"] > 12


def test_a_run_that_replays_is_undone_with_what_it_keeps(
    base: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that fails after its updates leaves no group of its own to replay."""
    keys = {**base, "steps": 4, "replay_groups": 2, "lr": 1e-2}
    whole = train(make_config({**keys, "out": str(tmp_path / "whole")}))
    rollouts = module.Recorder.rollouts

    def failing(self: Any, step: int, result: Any) -> float:
        if step == 3:
            raise OSError(28, "No space left on device")
        return rollouts(self, step, result)

    monkeypatch.setattr(module.Recorder, "rollouts", failing)
    with pytest.raises(StorageError):
        train(make_config(keys))
    monkeypatch.setattr(module.Recorder, "rollouts", rollouts)
    resumed = train(make_config(keys), resume=True)
    first, second = (Path(r.folder, "final", "model.safetensors").read_bytes() for r in (whole, resumed))
    assert first == second


def test_what_is_replayed_is_measured_and_recorded_only_where_it_was_drawn(base: dict[str, Any]) -> None:
    result = train(make_config({**base, "steps": 3, "replay_groups": 2, "record": "tokens", "lr": 1e-2}))
    for step, row in enumerate(result.metrics, 1):
        table = pq.read_table(result.folder / "rollouts" / f"step-{step:06}.parquet")
        assert table.num_rows == row["rollouts/sampled"] == 12
        assert row["rollouts/trained"] == 12 + (8 if step > 1 else 0)


def test_what_was_kept_to_replay_goes_where_rewards_changed(
    base: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {**base, "steps": 2, "replay_groups": 2}
    train(make_config(keys))
    changed = {**keys, "steps": 3, "reward": ["length"]}
    result = train(make_config(changed), resume=True, accept_changes=True, display=Display(quiet=False))
    assert "what the run kept to replay or to go on with is left out" in " ".join(capsys.readouterr().err.split())
    assert result.metrics[2]["rollouts/trained"] == 12


def test_the_configuration_says_how_long_a_continued_run_was(base: dict[str, Any]) -> None:
    first = train(make_config({**base, "steps": 2}))
    train(make_config({**base, "steps": 3}), resume=True)
    assert yaml.safe_load((first.folder / "config.yaml").read_text())["optimisation"]["steps"] == 3
    assert not list(first.folder.glob("config-until-*"))


def test_more_replayed_groups_than_are_kept_are_refused(base: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="only replay_size = 2 groups are kept"):
        train(make_config({**base, "replay_groups": 3, "replay_size": 2}))
