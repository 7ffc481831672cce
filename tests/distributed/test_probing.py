"""Ranks that probe tell each other a byte a probe, and make one update of all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import micro
from tests.distributed.launching import run_on_ranks
from tests.distributed.probing_ranks import PROBES


@pytest.fixture(scope="module")
def report(micro_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    micro.folder(micro_root)
    return run_on_ranks("tests.distributed.probing_ranks", tmp_path_factory.mktemp("probing"), str(micro_root))


@pytest.mark.parametrize("case", ["probed", "coupled"])
def test_ranks_with_probes_of_their_own_have_the_same_weights_to_the_bit(report: dict[str, Any], case: str) -> None:
    assert report[case]["apart"] == 0.0
    assert report[case]["skipped"] == 0
    assert report[case]["grad_norm"] > 0


def test_two_ranks_are_two_machines_of_one_process(report: dict[str, Any]) -> None:
    assert report["probed"]["from one process"] < 1e-9
    assert report["probed"]["grad_norm"] == pytest.approx(report["probed"]["norm of one process"], rel=1e-9)


def test_what_ranks_tell_of_an_update_is_a_byte_a_probe(report: dict[str, Any]) -> None:
    sent = report["probed"]["sent"]
    assert [each["found"] for each in sent] == [PROBES, PROBES]
    # Beside it, as with a gradient, what an update has to tell: losses, passes, times. The gradient would be twice the model.
    assert all(each["told"] < 1000 for each in sent)
    assert 2 * 4 * report["probed"]["numbers"] > 100_000
