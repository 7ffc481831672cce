"""The page and the tables that a comparison writes."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from cohort.analysis.comparing import analyse
from cohort.analysis.findings import Entry, Findings
from cohort.analysis.measure import HELD_OUT
from cohort.analysis.report import write_report
from tests.analysis.comparisons import PROBLEMS, contrast


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
