"""What a comparison says of runs whose truth is known."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from cohort.analysis.comparing import analyse
from cohort.analysis.findings import Entry, Findings
from cohort.analysis.measure import HELD_OUT, evaluation_path
from cohort.analysis.report import write_report
from tests.analysis.comparisons import contrast, entry


def test_a_difference_is_said_in_a_sentence(findings: Findings) -> None:
    said = re.fullmatch(r"better by ([\d.]+) points \[([\d.]+), ([\d.]+)\]", contrast(findings, "better"))
    assert said, contrast(findings, "better")
    value, low, high = map(float, said.groups())
    assert 14 < value < 26
    assert 0 < low < value < high
    assert re.match(
        r"no difference shown at this size \([+-][\d.]+ points \[-[\d.]+, \+[\d.]+\]\): (it would take about \d+ seeds|"
        "seeds alone would not show it)",
        contrast(findings, "alike"),
    )
    assert contrast(findings, "alike", "sampled") == "the same"
    # With equal steps, the better one reaches the same accuracy with fewer tokens.
    assert contrast(findings, "better", "tokens_to").startswith("better by")
    assert all(c.corrected >= c.p for c in findings.contrasts if not math.isnan(c.p))


def test_a_lower_value_is_worse_or_better_as_the_measure_is(entries: list[Entry]) -> None:
    turned = analyse([entries[1], entries[0]])
    assert contrast(turned, "grpo").startswith("worse by")
    assert contrast(turned, "grpo", "tokens_to").startswith("worse by")


def test_the_target_is_one_that_all_reach_and_a_higher_one_is_reported_as_such(entries: list[Entry]) -> None:
    found = analyse(entries)
    assert found.target == pytest.approx(0.1 + 0.9 * 0.4, abs=0.02)
    by_entry = {r.entry: r for r in found.results if r.measure == "tokens_to"}
    assert by_entry["better"].reached == (5, 5)
    assert by_entry["better"].estimate.value == pytest.approx(600 * (found.target - 0.1) / 0.6, rel=0.02)
    high = {r.entry: r for r in analyse(entries, target=0.6).results if r.measure == "tokens_to"}
    assert high["better"].reached == (5, 5)
    assert high["grpo"].reached == (0, 5)
    assert high["grpo"].estimate.value == 600


def test_a_single_seed_is_said_to_have_intervals_over_problems_alone(tmp_path: Path) -> None:
    found = analyse([entry(tmp_path, "a", [0.4]), entry(tmp_path, "b", [0.8])])
    assert any("intervals are over problems alone" in note for note in found.notes)
    assert contrast(found, "b").startswith("better by")


def test_what_makes_a_comparison_unfair_is_named(tmp_path: Path) -> None:
    found = analyse([entry(tmp_path, "a", [0.5, 0.5]), entry(tmp_path, "b", [0.5, 0.5], data="other.jsonl", steps=9)])
    assert any("trained on different data" in n and "a: train.jsonl; b: other.jsonl" in n for n in found.notes)
    assert any("different steps" in n for n in found.notes)
    assert any("b sampled 50% more tokens than a" in n for n in found.notes)


def test_runs_without_an_evaluation_or_cut_short_are_shown_with_what_they_have(tmp_path: Path) -> None:
    whole = entry(tmp_path, "a", [0.5, 0.5])
    bare = entry(tmp_path, "b", [0.5, 0.6], evaluations=())
    cut = entry(tmp_path, "c", [0.5], finished=False)
    path = evaluation_path(cut.runs[0].folder, HELD_OUT)
    path.write_bytes(path.read_bytes()[:-30])
    with (cut.runs[0].folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "acc')
    cut.runs[0].refresh()
    found = analyse([whole, bare, cut])
    assert {r.entry for r in found.results if r.measure == "pass@1"} == {"a"}
    assert {"a", "b", "c"} <= set(found.curves["accuracy"]["step"])
    text = "\n".join(found.notes)
    assert "b, seed 1 has no evaluation on held-out" in text
    assert "c, seed 0 did not finish (it ended after step 6)" in text
    assert f"{path} cannot be read as an evaluation" in text
    assert "1 line(s) hold no step" in text
    write_report(tmp_path, found)
    assert (tmp_path / "report.html").stat().st_size > 1000
    alone = analyse([bare, entry(tmp_path, "d", [0.5, 0.6], evaluations=())])
    assert {c.measure for c in alone.contrasts} >= {"seconds", "tokens_to"}
    assert not any(r.measure == "pass@1" for r in alone.results)
