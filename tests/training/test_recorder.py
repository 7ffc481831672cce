"""What stays of a step's rollouts on disk: the right numbers, no more than there is room for, and training none the wiser."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from cohort.training.config import TrainConfig, make_config
from cohort.training.diagnostics import by_outcome, of_ratios
from cohort.training.display import Display
from cohort.training.outcome import StepResult
from cohort.training.recorder import Recorder
from cohort.training.run import Result, train
from cohort.training.table import rollout_table, signals
from cohort.training.trace import REMOVED_AFTER, REMOVED_BEFORE, TRAINED
from cohort.types import Batch
from tests.helpers import prompt_of, request_of, rollout_of, tiny_policy

FULL = {
    "tokens",
    "mask",
    "sampler_logp",
    "pieces",
    "old_entropy",
    "base_advantage",
    "advantage",
    "old_logp",
    "logp",
    "ratio",
    "weight",
    "policy_gradient",
    "clipped",
}
OF_ALL = {"tokens", "mask", "sampler_logp"}


def run(base: dict[str, Any], **changes: Any) -> Result:
    return train(make_config({**base, **changes}), display=Display(quiet=True))


def table_of(result: Result, step: int) -> pa.Table:
    return pq.read_table(result.folder / "rollouts" / f"step-{step:06d}.parquet")


def lists(table: pa.Table) -> set[str]:
    return {field.name for field in table.schema if pa.types.is_list(field.type)}


def test_recording_changes_nothing_of_the_training(base: dict[str, Any], tmp_path: Path) -> None:
    method = "dapo(dynamic_sampling=False)+gtpo:credit+capo-curvature"
    done = {
        record: run(base, method=method, record=record, updates=2, epochs=2, steps=3, out=str(tmp_path / record))
        for record in ("none", "rollouts", "sampled", "tokens")
    }
    first = done["none"]
    assert not (first.folder / "rollouts").exists()
    assert [row["time/record"] for row in first.metrics] == [0.0] * 3
    weights = load_file(first.folder / "final" / "model.safetensors")
    for record, result in list(done.items())[1:]:
        again = load_file(result.folder / "final" / "model.safetensors")
        assert all(torch.equal(weights[name], again[name]) for name in weights)
        for a, b in zip(first.metrics, result.metrics, strict=True):
            assert {k: v for k, v in a.items() if not k.startswith("time/")} == {
                k: v for k, v in b.items() if not k.startswith("time/")
            }
        table = table_of(result, 3)
        assert 0 < result.metrics[-1]["time/record"] < 60
        assert {"completion", "reward", "shaped_reward", "kept", "length", "logp_mean", "advantage_mean"} <= set(
            table.column_names
        )
        full = [row["group"] for row in table.to_pylist() if row.get("policy_gradient") is not None]
        if record == "rollouts":
            assert lists(table) == set()
        elif record == "sampled":
            # Ids of all; of whole groups, and not of all of them, everything.
            assert all(table[name].null_count == 0 for name in OF_ALL)
            assert {name: table[name].null_count for name in FULL - OF_ALL} == dict.fromkeys(
                FULL - OF_ALL, 12 - len(full)
            )
            assert full == sorted(list(set(full)) * 4)
            assert 0 < len(full) < 12
        else:
            assert lists(table) >= FULL
            assert len(full) == 12


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Steps of several updates with a large learning rate, so that ratios move, and are clipped."""
    folder = tmp_path_factory.mktemp("recorded")
    tiny_policy("qwen3").save(folder / "model")
    rows = [{"prompt": f"{a}+{b}="} for a in range(6) for b in range(6)]
    return run(
        {
            "model": str(folder / "model"),
            "data": rows,
            "reward": ["format:[0-4]", "0.5*length"],
            "steps": 2,
            "prompts_per_step": 3,
            "group_size": 4,
            "max_new_tokens": 8,
            "lr": 3e-2,
            "tensorboard": False,
            "show_every": 0,
            "out": str(folder / "run"),
        },
        method="grpo(kl_beta=0.05)+gtpo:credit",
        record="tokens",
        updates=3,
        epochs=2,
    )


def test_the_numbers_of_tokens_are_those_of_the_method(recorded: Result) -> None:
    metrics, rows = recorded.metrics[1], table_of(recorded, 2).to_pylist()
    chosen: dict[str, list[float]] = {"clipped": [], "ratio": []}
    for row in rows:
        token = {name: np.array(row[name]) for name in FULL - {"pieces"} | {"ref_logp"}}
        assert {len(value) for value in token.values()} == {len(row["pieces"])} == {len(row["tokens"])}
        assert re.sub(r"<\|[a-z]+\|>", "", "".join(row["pieces"])) == row["completion"]
        assert token["ratio"] == pytest.approx(np.exp(token["logp"] - token["old_logp"]), rel=1e-5)
        # The sequence mean of a third of the groups: 4 rollouts, and as many weights as tokens.
        assert token["weight"] == pytest.approx(1 / (4 * row["length"]), rel=1e-6)
        pulled = -token["weight"] * token["ratio"] * token["advantage"]
        free = token["clipped"] == 0
        assert token["policy_gradient"][free] == pytest.approx(pulled[free], rel=1e-4, abs=1e-8)
        assert np.all(token["policy_gradient"][~free] == 0)
        assert np.all(token["advantage"][~free] != 0)
        assert len(set(token["base_advantage"])) == 1
        assert row["logp_mean"] == pytest.approx(token["sampler_logp"].mean(), rel=1e-5)
        assert row["advantage_mean"] == pytest.approx(token["advantage"].mean(), rel=1e-5, abs=1e-6)
        assert row["policy_gradient_abs"] == pytest.approx(np.abs(token["policy_gradient"]).sum(), rel=1e-5, abs=1e-9)
        assert row["kept"] == "trained"
        chosen["ratio"] += list(token["ratio"])
        chosen["clipped"] += list(token["clipped"][token["advantage"] != 0])
    assert 0 < np.mean(chosen["clipped"]) == pytest.approx(metrics["clip_fraction"])
    assert metrics["ratio/clip_high_fraction"] + metrics["ratio/clip_low_fraction"] == pytest.approx(
        metrics["clip_fraction"]
    )
    assert metrics["ratio/mean"] == pytest.approx(np.mean(chosen["ratio"]), rel=1e-5)
    assert metrics["ratio/max"] == pytest.approx(np.max(chosen["ratio"]), rel=1e-5)


def test_metrics_by_outcome_are_those_of_the_recorded_rollouts(recorded: Result) -> None:
    metrics, rows = recorded.metrics[0], table_of(recorded, 1).to_pylist()
    for outcome, value in (("correct", 1.0), ("wrong", 0.0)):
        found = [row for row in rows if row["accuracy"] == value]
        assert found
        assert metrics[f"length/{outcome}"] == pytest.approx(np.mean([row["length"] for row in found]))
        assert metrics[f"logp/{outcome}"] == pytest.approx(np.mean([row["logp_mean"] for row in found]), rel=1e-5)
    groups: dict[int, list[float]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(row["accuracy"])
    assert metrics["group/pass@1"] == pytest.approx(np.mean([np.mean(group) for group in groups.values()]))
    assert metrics["group/pass@G"] == pytest.approx(np.mean([max(group) for group in groups.values()]))


def test_metrics_that_are_not_defined_are_none_or_absent() -> None:
    mask = torch.tensor([[1, 1], [1, 0], [0, 0]])
    batch = Batch.of(
        mask, group=torch.tensor([0, 0, 1]), accuracy=torch.ones(3), sampler_logp=torch.full((3, 2), torch.nan)
    )
    found = by_outcome(batch, batch.replace(logp=torch.tensor([[-1.0, -3.0], [-4.0, 9.0], [9.0, 9.0]])))
    assert found["logp/correct"] == -3.0
    assert found["length/correct"] == 1.0
    assert np.isnan([found["logp/wrong"], found["length/wrong"]]).all()
    assert of_ratios(batch) == {}


def made(*, stage: list[int]) -> StepResult:
    """A step of two groups of two rollouts, of which those of stage TRAINED were."""
    policy = tiny_policy()
    prompts = [prompt_of(policy, text) for text in "ab"]
    rollouts = [rollout_of(request_of(prompts[i // 2]), [5 + i] * (i + 1), text=str(i)) for i in range(4)]
    count = torch.arange(1, 5)[:, None]
    mask = torch.arange(4) < count
    everything = Batch.of(
        mask,
        group=torch.tensor([0, 0, 1, 1]),
        token_ids=torch.arange(5, 9)[:, None] * mask,
        sampler_logp=torch.full((4, 4), -1.0),
        old_entropy=torch.ones(4, 4),
    )
    everything = everything.with_rollouts(stage=torch.tensor(stage), shaped_reward=torch.full((4,), torch.nan))
    everything = everything.with_tokens(base_advantage=torch.ones(4, 4))
    # The order of training is not that of sampling.
    trained = [i for i in reversed(range(4)) if stage[i] == TRAINED]
    batch = everything.select(torch.tensor(trained))
    values = batch["token_ids"].float()
    batch = batch.with_tokens(logp=-values, advantages=values, policy_gradient=values)
    return StepResult({"time/step": 1.0}, rollouts, everything, batch, trained)


def test_rows_of_the_update_find_their_rollouts_and_the_others_say_why_they_were_left_out() -> None:
    result = made(stage=[TRAINED, REMOVED_BEFORE, REMOVED_AFTER, TRAINED])
    rows = rollout_table(result, filters=("first or second", "last")).to_pylist()
    assert [row["advantage"] for row in rows] == [[5.0], None, None, [8.0] * 4]
    assert [row["base_advantage"] for row in rows] == [[1.0], None, None, [1.0] * 4]
    assert [row["advantage_mean"] for row in rows] == [5.0, None, None, 8.0]
    assert [row["tokens"] for row in rows] == [[5], [6] * 2, [7] * 3, [8] * 4]
    assert [row["old_logp"] for row in rows] == [row["logp"] for row in rows]
    assert [row["kept"] for row in rows] == [
        "trained",
        "removed before the advantage by first or second",
        "removed after the advantage by last",
        "trained",
    ]
    assert [row["shaped_reward"] for row in rows] == [None] * 4
    assert not {"ratio", "weight", "ref_logp", "pieces"} & set(rows[0])
    assert signals(result) == [5.0, 32.0]
    half = rollout_table(result, groups=[1]).to_pylist()
    assert [row["advantage"] for row in half] == [None, None, None, [8.0] * 4]
    assert [row["old_entropy"] for row in half] == [None, None, [1.0] * 3, [1.0] * 4]
    assert [row["tokens"] for row in half] == [row["tokens"] for row in rows]


def test_tokens_of_earlier_weights_have_their_version_and_age_and_a_run_without_any_has_no_such_columns() -> None:
    result = made(stage=[TRAINED] * 4)
    assert not {"version", "age"} & set(rollout_table(result).column_names)
    version = torch.tensor([[5, 0, 0, 0], [5, 5, 0, 0], [3, 5, 5, 0], [3, 4, 0, 5]])
    mask = result.everything.mask.clone()
    mask[3, 2] = False
    own = result.everything.replace(mask=mask).with_tokens(version=version)
    result = replace(result, everything=own, version=5)
    rows = rollout_table(result, groups=[0]).to_pylist()
    assert [row["version"] for row in rows] == [[5], [5, 5], [3, 5, 5], [3, 4, 0, 5]]
    # What the policy did not draw has no age, and other groups' rollouts have theirs too.
    assert [row["age"] for row in rows] == [[0], [0, 0], [2, 0, 0], [2, 1, 0, 0]]
    fresh = replace(result, everything=own.with_tokens(version=torch.full((4, 4), 5)))
    assert not {"version", "age"} & set(rollout_table(fresh).column_names)


def test_rollouts_that_went_on_over_steps_are_stored_with_the_age_of_their_windows(base: dict[str, Any]) -> None:
    done = run(base, method="t-ppo(window=3)", record="tokens", steps=3)
    rows = [row for step in (1, 2, 3) for row in table_of(done, step).to_pylist()]
    ages = {age for row in rows for age in row.get("age") or [] if age}
    assert ages <= {1, 2}
    assert 1 in ages
    for row in rows:
        for version, age, mask in zip(row.get("version") or [], row.get("age") or [], row["mask"], strict=False):
            assert age == 0 or mask
            assert version >= 0


def limited(config: TrainConfig, megabytes: float) -> TrainConfig:
    return config.model_copy(update={"output": config.output.model_copy(update={"record_limit_mb": megabytes})})


def test_at_the_limit_lists_end_first_and_rollouts_then_each_said_once(tmp_path: Path) -> None:
    result = made(stage=[TRAINED] * 4)
    config = make_config({"tensorboard": False, "record": "tokens"})
    said: list[str] = []
    limit = 60_000
    recorder = Recorder(tmp_path, limited(config, limit / 1e6), start=0, log=said.append)
    for step in range(1, 40):
        assert (recorder.rollouts(step, result) > 0) == (tmp_path / "rollouts" / f"step-{step:06d}.parquet").exists()
    recorder.close()
    files = sorted((tmp_path / "rollouts").glob("*.parquet"))
    sizes = np.cumsum([path.stat().st_size for path in files])
    assert 0.8 * limit < sizes[-1] <= limit
    kinds = ["tokens" in pq.read_schema(path).names for path in files]
    assert kinds == sorted(kinds, reverse=True)
    assert {True, False} == set(kinds)
    assert sizes[kinds.count(True) - 2] <= 0.8 * limit < sizes[kinds.count(True) - 1]
    assert len(said) == 2
    assert "without the numbers of their tokens" in said[0]
    assert "no more rollouts are recorded" in said[1]
    # A run that goes on counts what is there.
    again = Recorder(tmp_path, limited(config, limit / 1e6), start=39, log=said.append)
    assert again.rollouts(40, result) == 0.0
    again.close()
    assert len(said) == 3


def test_steps_can_be_left_out_and_a_file_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = made(stage=[TRAINED] * 4)
    recorder = Recorder(tmp_path, make_config({"tensorboard": False, "record_every": 3}), start=0)
    assert [recorder.rollouts(step, result) > 0 for step in range(1, 7)] == [False, False, True] * 2
    write = pq.write_table

    def cut(table: pa.Table, path: Path, **how: Any) -> None:
        write(table, path, **how)
        path.write_bytes(path.read_bytes()[:50])
        raise OSError("disk full")

    monkeypatch.setattr(pq, "write_table", cut)
    with pytest.raises(OSError, match="disk full"):
        recorder.rollouts(9, result)
    recorder.close()
    assert sorted(path.name for path in (tmp_path / "rollouts").glob("step-*")) == [
        "step-000003.parquet",
        "step-000006.parquet",
    ]
