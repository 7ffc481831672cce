"""Processes that end when their parent does."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from cohort.lifeline import Lifeline, Scratch

CUT = "import os, sys; from cohort.lifeline import Lifeline; Lifeline(int(sys.argv[1])); os.kill(os.getpid(), 9)"

MAKES = """
import os, sys
from pathlib import Path
from cohort.lifeline import Scratch
path = Scratch("it's ", Path(sys.argv[1])).path
(path / "weights").write_text("many")
os.kill(os.getpid(), 9)
"""


def test_a_process_ends_with_the_one_that_holds_its_lifeline():
    other = subprocess.Popen(["sleep", "600"])
    subprocess.run([sys.executable, "-c", CUT, str(other.pid)], check=False)
    assert other.wait(timeout=20) == -9


def test_a_lifeline_that_is_closed_leaves_it_alone():
    other = subprocess.Popen(["sleep", "600"])
    Lifeline(other.pid).close()
    assert other.poll() is None
    other.kill()
    other.wait()


def test_a_folder_goes_with_the_process_that_made_it_even_if_that_is_killed(tmp_path: Path):
    (tmp_path / "others").mkdir()
    assert subprocess.run([sys.executable, "-c", MAKES, str(tmp_path)], check=False).returncode == -9
    deadline = time.monotonic() + 20
    while len(left := sorted(path.name for path in tmp_path.iterdir())) > 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == ["others"]


def test_a_folder_can_be_taken_away_before(tmp_path: Path):
    scratch = Scratch("weights-", tmp_path)
    (scratch.path / "weights").write_text("many")
    scratch.close()
    assert list(tmp_path.iterdir()) == []
