"""A browser for the tests of pages, and runs whose truth is known."""

from __future__ import annotations

import pytest

from cohort.analysis.comparing import analyse
from cohort.analysis.findings import Entry, Findings
from tests.analysis.comparisons import entry
from tests.browser import browser as browser


@pytest.fixture(scope="package")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    root = tmp_path_factory.mktemp("runs")
    return [
        entry(root, "grpo", [0.50, 0.52, 0.49, 0.51, 0.48]),
        entry(root, "better", [0.70, 0.71, 0.69, 0.70, 0.70]),
        entry(root, "alike", [0.53, 0.47, 0.52, 0.49, 0.50]),
    ]


@pytest.fixture(scope="package")
def findings(entries: list[Entry]) -> Findings:
    return analyse(entries)
