"""What the benchmark of scale makes of its runs, and that a run is what it says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import scale

DEV = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
  eth0:  999       11    0    0    0     0          0         0   7       11    0    0    0     0       0          0
    lo:  100588      11    0    0    0     0          0         0   100588      11    0    0    0     0       0          0
"""


def test_bytes_are_those_of_the_loopback_device() -> None:
    assert scale.loopback(DEV) == 100588


def test_what_tokens_cost_is_parted_from_what_they_do_not() -> None:
    assert scale.slope((100.0, 5000.0 + 100 * 12), (700.0, 5000.0 + 700 * 12)) == pytest.approx((12.0, 5000.0))


@pytest.mark.parametrize(("step", "share"), [(10.0, 0.0), (6.0, 1.0), (7.0, 0.75), (11.0, -0.25)])
def test_a_stage_is_hidden_as_far_as_it_does_not_lengthen_the_step(step: float, share: float) -> None:
    assert scale.hidden(step, {"time/step": 10.0, "time/sample": 6.0}) == pytest.approx(share)
    assert scale.hidden(step, {"time/step": 10.0, "time/sample": 4.0}) == pytest.approx(share)


def test_medians_are_those_of_each_part() -> None:
    rows = [dict.fromkeys(scale.PARTS, value + i) for i, value in enumerate((1.0, 9.0, 3.0))]
    assert scale.medians(rows) == dict.fromkeys(scale.PARTS, 5.0)


def test_a_case_is_a_run_of_the_command_with_its_threads(tmp_path: Path) -> None:
    size = scale.size_of(hidden=32, layers=1, prompt_len=4, max_new=4, group=2, prompts=2)
    parameters = scale.prepare(tmp_path, size)
    assert parameters > 32 * size.vocab
    rows, sent = scale.run(tmp_path, scale.CASES["one"], size, 2)
    assert [row["step"] for row in rows] == [1, 2]
    assert sent == 0
    assert all(scale.medians(rows)[part] > 0 for part in scale.PARTS)


def test_a_run_that_fails_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "command", lambda *_: [sys.executable, "-c", "import sys; sys.exit('no such thing')"])
    with pytest.raises(RuntimeError, match="one process, one thread ended with status 1: no such thing"):
        scale.run(tmp_path, scale.CASES["one"], scale.size_of(), 2)
