"""Rewards of a report with a letter: what hedging costs, and what shape adds."""

from __future__ import annotations

import pytest

from cohort.errors import UsageError
from cohort.rewards.choices import KINDS, choice, english, gold_letter
from cohort.rewards.spec import parse

REPORT = "<think>Fever.</think> <answer>So it is \\boxed{B}</answer>"
BY_NAME = {kind.name: kind for kind in KINDS}


@pytest.mark.parametrize(("gold", "letter"), [("B", "B"), ("(b)", "B"), (r"\text{B}", "B"), ("42", None), (None, None)])
def test_a_letter_is_read_however_it_is_written(gold, letter):
    assert gold_letter(gold) == letter


def test_hedging_costs_more_than_being_wrong():
    completions = [r"\boxed{B}", r"\boxed{C}", r"\boxed{B} \boxed{C}", r"\boxed{b}", r"\boxed", "B"]
    assert choice(completions=completions, answer=["B"] * 6) == [1.0, 0.0, -2.0, -0.5, -1.0, 0.0]
    assert choice(completions=[r"\boxed{B}"], answer=["42"]) == [None]
    assert BY_NAME["choice"].inapplicable("", [{"answer": "B"}, {}, {"answer": "42"}]) == [
        ([1], "have no answer"),
        ([2], "have an answer that is no letter"),
    ]


def test_sections_have_the_tags_that_one_names():
    (spec,) = parse(["sections:dx,conclusion"])
    score = spec.load()
    assert score(completions=[REPORT]) == [0.0]
    assert score(completions=[REPORT.replace("think", "dx").replace("answer", "conclusion")]) == [1.5]
    assert BY_NAME["sections"].make("")(completions=[REPORT, REPORT + " done"]) == [1.5, 0.0]
    with pytest.raises(UsageError, match="name two tags"):
        BY_NAME["sections"].make("one")


def test_a_right_report_earns_the_most_and_right_beats_wrong():
    rewards = parse(["10*choice", "sections", "0.5*english"])

    def total(text):
        given = {"completions": [text], "answer": ["B"]}
        return sum(spec.weight * spec.load()(**given)[0] for spec in rewards)

    assert total(REPORT) == 12.0
    assert total(r"\boxed{B}") > total(REPORT.replace("{B}", "{C}"))
    assert english(completions=[""]) == [0.0]
