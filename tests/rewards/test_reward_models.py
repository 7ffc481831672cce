"""The reward rm: how it is written, what it gives out, and what is told before anything is drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cohort.errors import UsageError
from cohort.policies.scoring import load_scoring
from cohort.rewards import reward_models
from cohort.rewards.ensemble import RECORD, Record, RewardModel, leading_number, read_record
from cohort.rewards.reward_models import check, components, read
from cohort.rewards.scorer import Scorer
from cohort.rewards.spec import parse
from tests.rewards.scoring_folders import decoder, encoder

TEXTS = ["ab", "b", "ba", "ab"]


@pytest.fixture(autouse=True)
def fresh() -> None:
    reward_models._loaded.cache_clear()


def graded(*rewards: str, completions: list[Any] = TEXTS, prompt: Any = "say") -> dict[str, list[float | None]]:
    with Scorer(parse(rewards)) as scorer:
        return scorer.grade([prompt] * len(completions), completions, None, {}).components


def outputs(folder: Path, completions: list[str] = TEXTS) -> torch.Tensor:
    model = load_scoring(str(folder))
    return model.outputs([model.encode("say", text) for text in completions])


def ensemble(folder: Path, **record: Any) -> Path:
    encoder(folder)
    encoder(folder / "member-2", seed=1)
    Record(members=(".", "member-2"), **record).save(folder)
    return folder


def test_one_label_is_its_score(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "one")
    found = graded(f"rm:{folder}")
    assert found["rm"] == pytest.approx(outputs(folder)[:, 0].tolist(), abs=1e-5)
    assert graded(f"rm:{folder}?output=sigmoid")["rm"] == pytest.approx(
        outputs(folder)[:, 0].sigmoid().tolist(), abs=1e-5
    )


def test_several_labels_are_several_components_that_cost_one_pass(tmp_path: Path, monkeypatch) -> None:
    folder = encoder(tmp_path / "two", ("kind", "right"), "multi_label_classification")
    specs = parse([f"0.5*rm:{folder}"])
    assert [(spec.name, spec.weight) for spec in specs] == [("kind", 0.5), ("right", 0.5)]
    passes = []
    plain = RewardModel.scaled
    monkeypatch.setattr(RewardModel, "scaled", lambda *given: passes.append(1) or plain(*given))
    found = graded(f"rm:{folder}")
    assert len(passes) == 1
    want = outputs(folder).sigmoid()
    assert found["kind"] == pytest.approx(want[:, 0].tolist(), abs=1e-5)
    assert found["right"] == pytest.approx(want[:, 1].tolist(), abs=1e-5)
    assert graded(f"rm:{folder}#right?output=score")["right"] == pytest.approx(outputs(folder)[:, 1].tolist(), abs=1e-5)


def test_labels_that_exclude_each_other_are_named_or_numbers(tmp_path: Path) -> None:
    tones = encoder(tmp_path / "tones", ("rude", "polite"))
    with pytest.raises(UsageError, match=r"rm:.*#polite"):
        graded(f"rm:{tones}")
    assert graded(f"rm:{tones}#polite")["polite"] == pytest.approx(outputs(tones).softmax(1)[:, 1].tolist(), abs=1e-5)
    stars = encoder(tmp_path / "stars", ("1 star", "2 stars", "3 stars"))
    want = outputs(stars).softmax(1) @ torch.tensor([1.0, 2.0, 3.0])
    assert graded(f"rm:{stars}")["rm"] == pytest.approx(want.tolist(), abs=1e-5)
    assert [leading_number(label) for label in ("LABEL_3", "-1", "bad", "")] == [3, -1, None, None]


def test_members_are_averaged_and_what_they_disagree_by_can_be_subtracted(tmp_path: Path) -> None:
    folder = ensemble(tmp_path / "both", scale=((2.0,), (1.0,)), offset=((1.0,), (0.0,)))
    first, second = 2 * outputs(folder)[:, 0] + 1, outputs(folder / "member-2")[:, 0]
    mean, apart = (first + second) / 2, (first - second).abs() / 2
    with Scorer(parse([f"rm:{folder}?lcb=1.5"])) as scorer:
        found = scorer.grade(["say"] * 4, TEXTS, None, {})
    assert found.components["rm"] == pytest.approx((mean - 1.5 * apart).tolist(), abs=1e-4)
    assert found.extra["rm/rm/disagreement"] == pytest.approx(apart.tolist(), abs=1e-4)
    assert found.metrics["rm/rm/disagreement"] == pytest.approx([float(apart.mean())], abs=1e-4)
    assert graded(f"rm:{folder}")["rm"] == pytest.approx(mean.tolist(), abs=1e-4)


def test_the_part_that_is_asked_for_is_read(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "one")
    said = ["<think>ab</think>b", "no thought", "a</think>b"]
    want = outputs(folder, ["ab", "", "a"])[:, 0].tolist()
    assert graded(f"rm:{folder}?part=thought", completions=said)["rm"] == pytest.approx(want, abs=1e-5)
    want = outputs(folder, ["b", "no thought", "b"])[:, 0].tolist()
    assert graded(f"rm:{folder}?part=answer", completions=said)["rm"] == pytest.approx(want, abs=1e-5)
    blind = graded(f"rm:{folder}?prompt=no")["rm"]
    assert blind == graded(f"rm:{folder}?prompt=no", prompt="another")["rm"]
    assert blind != graded(f"rm:{folder}")["rm"]


def test_conversations_are_read_through_the_chat_template(tmp_path: Path) -> None:
    folder = decoder(tmp_path / "chat")
    asked = [{"role": "user", "content": "say"}]
    answered = [{"role": "assistant", "content": "ab"}]
    assert graded(f"rm:{folder}", completions=[answered], prompt=asked) == graded(f"rm:{folder}", completions=["ab"])


def test_texts_that_are_too_long_are_told_and_their_end_is_read(tmp_path: Path, capsys) -> None:
    folder = encoder(tmp_path / "one")
    with Scorer(parse([f"rm:{folder}"])) as scorer:
        found = [scorer.grade(["say"] * 2, ["a" * 40 + "b", "b"], None, {}) for _ in range(2)]
    assert found[0].metrics["rm/rm/cut"] == [0.5]
    assert capsys.readouterr().err.count("1 of 2 texts are longer than the 32 tokens") == 1


def test_scores_do_not_depend_on_earlier_calls(tmp_path: Path) -> None:
    """A resumed run must get the same numbers, to the bit."""
    folder = encoder(tmp_path / "one")
    with Scorer(parse([f"rm:{folder}"])) as scorer:
        scorer.grade(["say"] * 2, ["ab", "a" * 20], None, {})
        later = scorer.grade(["say"] * 4, TEXTS, None, {}).components["rm"]
    reward_models._loaded.cache_clear()
    assert graded(f"rm:{folder}")["rm"] == later


def row(**columns: Any) -> list[tuple[str, dict[str, Any]]]:
    return [("rows, line 1", columns)]


def test_what_cannot_be_is_told_before_anything_is_scored(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "one")
    check(f"{folder}", row(prompt="say this", answer="b"))
    with pytest.raises(UsageError, match="unknown to it: it was made for other texts"):
        check(f"{folder}", row(prompt="SAY THIS"))
    with pytest.raises(UsageError, match="and this is one model: leave it out, or train several"):
        check(f"{folder}?lcb=1", row(prompt="say this"))
    with pytest.raises(UsageError, match="there is no device 'tpux'"):
        check(f"{folder}?device=tpux", row(prompt="say this"))
    other = ensemble(tmp_path / "both")
    encoder(other / "member-2", ("a", "b"))
    with pytest.raises(UsageError, match="has other labels than its first member"):
        check(f"{other}", row(prompt="say this"))
    (other / RECORD).write_text('{"version": 1')
    with pytest.raises(UsageError, match=r"reward_model.json cannot be read"):
        read_record(str(other))


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("", "name a model"),
        ("#label", "name a model"),
        ("one?lbc=1", "there is no setting 'lbc'"),
        ("one?lcb=1&lcb=2", "there are two settings 'lcb'"),
        ("one?lcb=-1", "lcb is a number from 0 on"),
        ("one?length=0", "length is a number from 1 on"),
        ("one?part=end", "part is one of all, thought, answer"),
        ("one#other", "has no label 'other' .it has: reward"),
        ("one?output=expected", "output=expected is of all labels"),
        ("one?output=softmax", "has one label"),
        ("nowhere", "no such folder"),
        ("nowhere/at/all", "no such folder"),
    ],
)
def test_what_is_written_wrongly_is_told(argument: str, says: str, tmp_path: Path, monkeypatch) -> None:
    encoder(tmp_path / "one")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=says):
        Scorer(parse([f"rm:{argument}"]))


def test_forms_are_read_and_written_alike(tmp_path: Path) -> None:
    asked = read("org/name#very kind?lcb=0.5&part=thought")
    assert (asked.model, asked.label, asked.given) == ("org/name", "very kind", {"lcb": 0.5, "part": "thought"})
    assert read(asked.text) == asked
    folder = encoder(tmp_path / "two", ("kind", "right"), "regression")
    assert components(f"{folder}?lcb=1") == {"kind": f"{folder}#kind?lcb=1.0", "right": f"{folder}#right?lcb=1.0"}
    assert components(f"{folder}#kind") == {"kind": f"{folder}#kind"}
    names = {path.name for path in reward_models.files(f"{folder}#kind?lcb=1")}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert reward_models.files("org/name") == []
    assert json.loads((folder / "config.json").read_text())["problem_type"] == "regression"
