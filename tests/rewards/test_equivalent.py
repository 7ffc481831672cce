"""Rules first, then a model, of what may be an answer; tried against a server that says yes to everything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cohort.errors import UsageError
from cohort.rewards.calling import RewardError
from cohort.rewards.judges import server as server_module
from cohort.rewards.judges.judges import Judges, JudgeSettings
from cohort.rewards.scorer import Scorer
from cohort.rewards.spec import parse
from tests.rewards.judges.serving import Serving, always, serve

VECTORS = Path(__file__).parents[1] / "golden/vectors/math-verifiers.json"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COHORT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(server_module, "PAUSE", 0.02)


def graded(serving, completions, answers, prompt="equal", **columns):
    judges = Judges(JudgeSettings(timeout=1.0, concurrency=2))
    with Scorer(parse([f"equivalent:{prompt}@{serving.url}"]), judges=judges) as scorer:
        scores = scorer.grade(["What?"] * len(completions), completions, None, {"answer": answers, **columns})
    return scores.components["equivalent"], scores


def test_a_model_is_asked_of_what_rules_reject_and_may_be_an_answer():
    completions = [
        r"\boxed{0.5}",
        r"\boxed{five}",
        r"\boxed{6}",
        r"\boxed{5 or 6}",
        "five",
        r"\boxed{five}",
        r"\boxed{C}",
    ]
    answers = [r"\frac12", "5", "5", "5", "5", "5", "B"]
    with serve(Serving(answer=always("Final Decision: Yes"))) as serving:
        values, scores = graded(serving, completions, answers, type=["fill"] * 6 + ["mcq"])
    assert values == [1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    # The same question is asked once, and shows the answer alone.
    (asked,) = serving.asked
    assert "five" in asked["messages"][-1]["content"]
    assert "boxed" not in asked["messages"][-1]["content"]
    assert scores.metrics["equivalent/asked"] == [2 / 7]


def test_a_reply_without_a_decision_is_no():
    with serve(Serving(answer=always("Sure, it is equal."))) as serving:
        assert graded(serving, [r"\boxed{five}"], ["5"])[0] == [0.0]


def test_no_known_attack_pays_whatever_the_model_says():
    cases = {case["name"]: case["inputs"] for case in json.loads(VECTORS.read_text())["cases"]}
    attacks, honest = cases["hacking_patterns"], cases["honest_responses"]
    with serve(Serving(answer=always("Final Decision: Yes"))) as serving:
        values, _ = graded(serving, attacks["response"], attacks["gold"])
        right, _ = graded(serving, honest["response"], honest["gold"])
    assert values == [0.0] * 48
    assert right == [1.0] * 11
    assert not serving.asked


def test_a_judge_without_a_reply_is_a_failure_of_that_row():
    with serve(Serving(forever="close")) as serving, pytest.raises(RewardError):
        graded(serving, [r"\boxed{five}", r"\boxed{5}"], ["5", "5"])


def test_a_prompt_that_asks_for_a_score_is_refused():
    (spec,) = parse(["equivalent:quality@http://127.0.0.1:1/v1"])
    with pytest.raises(UsageError, match="its judge says yes or no"):
        spec.load()
