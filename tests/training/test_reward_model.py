"""Reward models that are trained here in seconds: what they learn, what is written, and what is refused."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cohort import registry
from cohort.data.judged import Judgements, read_judged
from cohort.data.prompts import PromptSpec
from cohort.errors import UsageError
from cohort.policies.toy import toy
from cohort.rewards.ensemble import RewardModel, read_record
from cohort.rewards.spec import parse
from cohort.training import reward_measures as measures
from cohort.training.inputs import functions_of
from cohort.training.reward_fit import Plan
from cohort.training.reward_model import Trained, split, thinned, train_reward_model
from tests.cli.command import run

ROWS = 160
PLAN = Plan("", steps=40, batch_size=16, lr=8e-3, warmup=4)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model of one layer, of which reward models are made."""
    folder = tmp_path_factory.mktemp("base") / "policy"
    toy(seed=0, hidden=32, layers=1, heads=2).save(folder)
    return folder


def judged(*rows: dict[str, Any], **how: Any) -> Judgements:
    return read_judged(list(rows), PromptSpec(), **how)


def answer(rng: random.Random, *, good: bool) -> str:
    """A run of letters; a good one holds an x."""
    letters = [rng.choice("abc") for _ in range(rng.randint(3, 6))]
    if good:
        letters[rng.randrange(len(letters))] = "x"
    return "".join(letters)


def pairs(count: int = ROWS) -> list[dict[str, Any]]:
    rng = random.Random(0)
    return [
        {"prompt": f"say {i}", "chosen": answer(rng, good=True), "rejected": answer(rng, good=False)}
        for i in range(count)
    ]


def trained(base: Path, folder: Path, rows: Judgements, held: Judgements | None = None, **changes: Any) -> Trained:
    learnt, apart = split(rows, 0.25, 0) if held is None else (rows, held)
    plan = replace(PLAN, model=str(base), **changes)
    how: dict[str, Any] = {"device": torch.device("cpu"), "dtype": torch.float32}
    return train_reward_model(learnt, apart, plan, folder, **how)


@pytest.fixture(scope="module")
def of_pairs(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble of two that was trained on pairs."""
    folder = tmp_path_factory.mktemp("pairs") / "model"
    trained(base, folder, judged(*pairs()), members=2)
    return folder


def test_pairs_are_learnt_and_members_can_be_compared(of_pairs: Path) -> None:
    record = read_record(str(of_pairs))
    found = record.evaluated["reward"]
    assert found["rows"] == ROWS / 4
    # Chance gives 0.5; of 40 pairs it gives 0.85 in one of a hundred thousand trials.
    assert found["accuracy"] > 0.85
    assert 0 <= found["calibration_error"] < 0.2
    model = RewardModel.load(str(of_pairs), device="cpu", dtype=torch.float32)
    rows = pairs()
    scores, _ = model.scores(
        [row["prompt"] for row in rows] * 2, [row[c] for c in ("chosen", "rejected") for row in rows]
    )
    good, bad = scores[:, :ROWS, 0], scores[:, ROWS:, 0]
    assert not torch.equal(good[0], good[1])
    assert (good - bad).mean(1).min() > 2
    # An order says nothing of the mean, which would differ from member to member.
    assert scores.mean(1).abs().max() < 0.3


def test_the_same_seed_gives_the_same_model_and_another_one_another(base: Path, tmp_path: Path) -> None:
    rows = judged(*pairs(40))
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(hash(name) % 1000)
        trained(base, tmp_path / name, rows, steps=3, seed=seed)
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


def test_every_pair_of_a_ranking_counts(base: Path, tmp_path: Path) -> None:
    rng = random.Random(1)
    rows = []
    for i in range(120):
        plain = answer(rng, good=False)
        rows.append({"prompt": f"say {i}", "optimised": plain + "xx", "initial": plain + "x", "degraded": plain})
    found = trained(base, tmp_path / "m", judged(*rows, ranked=("optimised", "initial", "degraded"))).record.evaluated
    assert found["reward"]["rows"] == 90
    assert found["reward"]["accuracy"] > 0.85


def test_axes_are_learnt_apart_though_every_row_lacks_one(base: Path, tmp_path: Path) -> None:
    rng = random.Random(2)
    rows = []
    for i in range(240):
        good = rng.random() < 0.5
        text = answer(rng, good=good)
        row: dict[str, Any] = {
            "prompt": f"say {i}",
            "completion": text,
            "crossed": 1 + 4.0 * good,
            "size": 10.0 * len(text),
        }
        row[rng.choice(["crossed", "size"])] = None
        rows.append(row)
    made = trained(base, tmp_path / "m", judged(*rows, score_fields=("crossed", "size")), steps=80)
    found = made.record.evaluated
    assert found["crossed"]["rows"] + found["size"]["rows"] == 60
    assert found["crossed"]["r2"] > 0.5
    assert found["size"]["r2"] > 0.5
    assert found["size"]["ordered"] > 0.75
    model = RewardModel.load(str(tmp_path / "m"), device="cpu", dtype=torch.float32)
    scores, _ = model.scores([row["prompt"] for row in rows], [row["completion"] for row in rows])
    # In the units of the columns, not of the network.
    assert scores[0, :, 0].std() == pytest.approx(2, rel=0.3)
    assert scores[0, :, 1].mean() == pytest.approx(45, rel=0.1)


def feedback(count: int) -> list[dict[str, Any]]:
    """Rare reactions: of one in five answers with an x half, of others a twentieth."""
    rng = random.Random(3)
    rows = []
    for i in range(count):
        good = rng.random() < 0.2
        rows.append(
            {
                "prompt": f"say {i}",
                "completion": answer(rng, good=good),
                "label": rng.random() < (0.6 if good else 0.04),
            }
        )
    return rows


def test_probabilities_stay_those_of_all_rows_where_negatives_were_left_out(base: Path, tmp_path: Path) -> None:
    learnt, held = split(judged(*feedback(800)), 0.5, 0)
    how: dict[str, Any] = {"negative_share": 0.2, "steps": 45}
    found = trained(base, tmp_path / "m", learnt, held, **how).record.evaluated["label"]
    assert found["auc"] > 0.7
    assert abs(found["mean_gap"]) < 0.06
    few, kept = thinned(learnt, replace(PLAN, negative_share=0.2))
    zeros = sum(row.targets == (0.0,) for row in learnt.rows)
    assert kept == pytest.approx(0.2, abs=0.01)
    assert len(learnt.rows) - len(few.rows) == zeros - round(0.2 * zeros)
    # Learnt from the same rows, without saying that they are a share.
    told = trained(base, tmp_path / "n", few, held, steps=45).record.evaluated["label"]
    assert told["mean_gap"] > 0.1
    assert told["auc"] == pytest.approx(found["auc"])
    # Where the data itself is such a sample, it is measured as it is.
    sampled = trained(base, tmp_path / "o", few, few, **how, sampled=True).record
    assert abs(sampled.evaluated["label"]["mean_gap"]) < 0.1
    assert sampled.offset[0][0] == pytest.approx(torch.tensor(0.2).log().item())


def stopped_after(steps: int) -> Callable[[], bool]:
    left = iter([False] * steps)
    return lambda: next(left, True)


def test_a_training_that_is_stopped_in_its_first_member_leaves_what_it_has(base: Path, tmp_path: Path) -> None:
    rows = judged(*pairs(40))
    how: dict[str, Any] = {"device": torch.device("cpu"), "dtype": torch.float32}
    plan = replace(PLAN, model=str(base), steps=20)
    made = train_reward_model(rows, rows, plan, tmp_path / "m", stop=stopped_after(7), **how)
    assert (made.steps, made.folder) == ((7,), tmp_path / "m")
    assert len(RewardModel.load(str(tmp_path / "m"), **how).members) == 1
    none = train_reward_model(rows, rows, plan, tmp_path / "n", stop=stopped_after(0), **how)
    assert (none.steps, none.folder) == ((), None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"], "a head that learnt nothing is no reward model"


def test_members_that_are_trained_outlive_a_stop_and_an_error(base: Path, tmp_path: Path) -> None:
    """The training that goes on ends with the model of one that was never stopped, bit for bit."""
    rows = judged(*pairs(40))
    how: dict[str, Any] = {"device": torch.device("cpu"), "dtype": torch.float32}
    plan = replace(PLAN, model=str(base), steps=5, members=3)
    train_reward_model(rows, rows, plan, tmp_path / "whole", **how)
    folder, said = tmp_path / "m", list[str]()
    first = train_reward_model(rows, rows, plan, folder, stop=stopped_after(7), **how)
    assert (first.steps, first.folder) == ((5,), None)

    def fails(step: int, loss: float) -> None:
        raise MemoryError("out of memory")

    with pytest.raises(MemoryError):
        train_reward_model(rows, rows, plan, folder, report=fails, **how)
    other = replace(plan, lr=1e-3)
    with pytest.raises(UsageError, match="holds members of a training with other settings or rows"):
        train_reward_model(rows, rows, other, folder, **how)
    last = train_reward_model(rows, rows, plan, folder, log=said.append, **how)
    assert last.steps == (5, 5, 5)
    assert [line for line in said if "is trained already" in line] == [
        f"member 1 is trained already: it is taken from {folder}.partial/member-1"
    ]
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(tmp_path / "whole") for p in (tmp_path / "whole").rglob("*") if p.is_file())
    assert [name for name in files if (folder / name).read_bytes() != (tmp_path / "whole" / name).read_bytes()] == []
    assert not (tmp_path / "m.partial").exists()


def test_adapters_end_in_a_whole_model(base: Path, tmp_path: Path) -> None:
    found = trained(base, tmp_path / "m", judged(*pairs(80)), lora=4, lr=2e-2).record.evaluated
    assert found["reward"]["accuracy"] > 0.7
    assert (tmp_path / "m" / "model.safetensors").is_file()
    assert not (tmp_path / "m" / "adapter_config.json").exists()


def test_prompts_are_parted_not_rows() -> None:
    rows = judged(*[{"prompt": f"q{i % 5}", "chosen": f"a{i}", "rejected": "b"} for i in range(20)])
    learnt, held = split(rows, 0.2, 0)
    assert len(held.rows) == 4
    assert not {row.prompt for row in held.rows} & {row.prompt for row in learnt.rows}
    assert split(rows, 0.2, 0)[1].rows == held.rows
    with pytest.raises(UsageError, match="all rows have one prompt"):
        split(judged({"prompt": "q", "chosen": "a", "rejected": "b"}), 0.2, 0)


def test_a_model_that_learnt_nothing_is_told_of(of_pairs: Path) -> None:
    rng = random.Random(4)
    rows = [
        {"prompt": f"q{i}", "chosen": answer(rng, good=False), "rejected": answer(rng, good=False)} for i in range(80)
    ]
    how: dict[str, Any] = {"device": torch.device("cpu"), "dtype": torch.float32}
    found = measures.measured(str(of_pairs), judged(*[row for row in rows if row["chosen"] != row["rejected"]]), **how)
    assert any("is not above chance (0.5)" in line for line in measures.summary("pairs", found))
    good = measures.measured(str(of_pairs), judged(*pairs(40)), **how)
    assert not any("is not above chance" in line for line in measures.summary("pairs", good))
    alike = replace(judged(*feedback(60)), rows=[row for row in judged(*feedback(60)).rows if row.targets == (0.0,)])
    (seen,) = measures.measure(alike, torch.randn(1, len(alike.rows), 1)).values()
    assert "auc" not in seen
    assert not any(math.isnan(value) for value in seen.values())
    assert "say nothing" in measures.summary("labels", {"label": seen})[1]
    with pytest.raises(UsageError, match="cannot be measured on these rows: its outputs are of the kind regression"):
        measures.measured(str(of_pairs), judged(*feedback(40)), **how)


def test_another_model_in_the_folder_is_noticed_when_a_run_goes_on(of_pairs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(of_pairs, folder)
    specs = parse([f"rm:{folder}?lcb=1"])
    before = functions_of(registry.method("grpo"), "grpo", specs)
    assert {Path(name).name for name in before} >= {"model.safetensors", "reward_model.json", "tokenizer.json"}
    assert sum("member-2" in name for name in before) >= 2
    shutil.copy(folder / "model.safetensors", folder / "member-2" / "model.safetensors")
    after = functions_of(registry.method("grpo"), "grpo", specs)
    assert [name for name in before if before[name] != after[name]] == [str(folder / "member-2" / "model.safetensors")]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_command_trains_measures_and_scores(base: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "pairs.jsonl", pairs(80))
    command = [
        "reward-model",
        "--model",
        str(base),
        "--data",
        data,
        "--lr",
        "8e-3",
        "--steps",
        "30",
        "--batch-size",
        "16",
    ]
    status, out, err = run(*command, "--out", str(tmp_path / "m"), "--json")
    assert status == 0, err
    assert "72 rows to learn from (pairs: reward), 8 to measure on" in err
    assert f"rm:{tmp_path / 'm'}" in err
    assert json.loads(out)["evaluated"]["reward"]["accuracy"] >= 0.5
    status, out, err = run("reward-model", "--model", str(tmp_path / "m"), "--data", data, "--only-evaluate", "--json")
    assert status == 0, err
    seen = json.loads(out)["evaluated"]["reward"]
    assert seen["accuracy"] > 0.7
    blind = ["--model", str(tmp_path / "m"), "--data", data, "--only-evaluate", "--no-prompt", "--json"]
    status, out, err = run("reward-model", *blind)
    assert status == 0, err
    assert json.loads(out)["evaluated"]["reward"]["log_loss"] != seen["log_loss"]
    answers = write(tmp_path / "answers.jsonl", [{"prompt": "say", "completion": ["axb", "acb"]}])
    status, out, err = run("score", "--data", answers, "--reward", f"rm:{tmp_path / 'm'}")
    assert status == 0, err
    good, bad = (json.loads(line)["rm"] for line in out.splitlines())
    assert good > bad
    status, _, err = run(*command, "--out", str(tmp_path / "m"))
    assert status == 2
    assert "already holds something" in err


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (["--out", "x", "--negative-share", "0.5"], "it goes with labels, not with pairs or scores"),
        (["--out", "x", "--negative-share", "0"], "a share above 0 and at most 1"),
        (["--out", "x", "--part", "end"], "--part is one of all, thought, answer"),
        (["--out", "x", "--part", "thought"], "no completion has marked reasoning"),
        (["--out", "x", "--layout", "pair", "--length", "4000"], "reads 512 tokens at most"),
        (["--out", "x", "--lr", "1e30"], "the learning rate .* is too large"),
        ([], "--out takes a folder"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    extra: list[str], says: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write(tmp_path / "pairs.jsonl", pairs(20))
    status, _, err = run(
        "reward-model", "--model", str(base), "--data", data, "--steps", "30", "--batch-size", "8", *extra
    )
    assert status == 2
    assert pytest.importorskip("re").search(says, " ".join(err.split())), err
    assert not (tmp_path / "x").exists()
