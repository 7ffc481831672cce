"""What a comparison says of runs whose truth is known, and the page and tables it writes."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path

import pytest

from cohort.analysis.measure import HELD_OUT, evaluation_path
from cohort.analysis.report import write_report
from cohort.analysis.tables import Entry, Findings, analyse, band, curves_of
from tests.analysis.comparisons import PROBLEMS, entry


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    root = tmp_path_factory.mktemp("runs")
    return [
        entry(root, "grpo", [0.50, 0.52, 0.49, 0.51, 0.48]),
        entry(root, "better", [0.70, 0.71, 0.69, 0.70, 0.70]),
        entry(root, "alike", [0.53, 0.47, 0.52, 0.49, 0.50]),
    ]


@pytest.fixture(scope="module")
def findings(entries: list[Entry]) -> Findings:
    return analyse(entries)


def contrast(findings: Findings, name: str, measure: str = "pass@1") -> str:
    (found,) = [c.sentence for c in findings.contrasts if (c.entry, c.measure) == (name, measure)]
    return found


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


def test_the_page_is_whole_and_asks_nothing_of_the_network(findings: Findings, tmp_path: Path) -> None:
    write_report(tmp_path, findings)
    text = (tmp_path / "report.html").read_text()
    assert len(text.encode()) < 6e6
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//|@import|url\(\s*[\"']?http", text)
    assert text.count("<script") == 4
    for needed in ("prefers-color-scheme: dark", "@media print", "width=device-width", "better by", "aria-sort"):
        assert needed in text
    (numbers,) = re.findall(r'<script type="application/json" id="findings">(.*?)</script>', text)
    drawn = json.loads(numbers)
    assert drawn["entries"] == ["grpo", "better", "alike"]
    assert drawn["curves"]["held-out accuracy"]["tokens"]["better"]["x"][-1] == 600
    for figure, of in re.findall(r'data-chart="curve" data-of="([^"]+)"()', text):
        assert figure in drawn["curves"], of
    for part in ("reward/number", "reward/length", "entropy", "completion/length_mean"):
        assert f'data-of="{part}"' in text


def test_names_cannot_break_the_page(tmp_path: Path, entries: list[Entry]) -> None:
    odd = Entry("</script><b>x", entries[1].runs)
    write_report(tmp_path, analyse([entries[0], odd]))
    text = (tmp_path / "report.html").read_text()
    assert "</script><b>x" not in text
    assert text.count("</script>") == 4


def test_tables_hold_every_number(findings: Findings, tmp_path: Path) -> None:
    write_report(tmp_path, findings)
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    measures = {row["measure"] for row in rows if row["entry"] == "grpo"}
    assert {f"pass@{k}" for k in range(1, 9)} | {
        "maj@8",
        "auroc",
        "ece",
        "diversity",
        "entropy",
        "length",
        "tokens_to",
        "trained_to",
        "seconds",
        "memory",
    } <= measures
    (row,) = [r for r in rows if (r["entry"], r["measure"]) == ("better", "pass@1")]
    assert float(row["low"]) < float(row["value"]) < float(row["high"])
    assert (row["seeds"], row["problems"]) == ("5", str(PROBLEMS))
    stored = json.loads((tmp_path / "results.json").read_text())
    assert len(stored["differences"]) == len(findings.contrasts)
    with (tmp_path / "differences.csv").open() as file:
        said = {(r["entry"], r["measure"]): r["sentence"] for r in csv.DictReader(file)}
    assert said["better", "pass@1"] == contrast(findings, "better")
    with (tmp_path / "runs.csv").open() as file:
        runs = list(csv.DictReader(file))
    assert [(r["entry"], r["seed"]) for r in runs][3:6] == [("grpo", "3"), ("grpo", "4"), ("better", "0")]
    # A method's mean is the mean of its runs.
    own = [float(r[f"{HELD_OUT}/pass@1"]) for r in runs if r["entry"] == "better"]
    assert sum(own) / 5 == pytest.approx(float(row["value"]))


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


def test_bands_reach_from_the_lowest_to_the_highest_seed_where_all_are(entries: list[Entry]) -> None:
    columns = curves_of(entries)["held-out accuracy"]["step"]["grpo"]
    assert columns["x"] == [0, 2, 4, 6]
    assert columns["low"][-1] == pytest.approx(0.48)
    assert columns["high"][-1] == pytest.approx(0.52)
    assert columns["mean"][-1] == pytest.approx(0.5, rel=1e-4)
    assert band([], "step") == {"x": [], "mean": [], "low": [], "high": []}
