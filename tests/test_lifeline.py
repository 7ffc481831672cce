"""Processes that end when their parent does."""

from __future__ import annotations

import subprocess
import sys

from cohort.lifeline import Lifeline

CUT = "import os, sys; from cohort.lifeline import Lifeline; Lifeline(int(sys.argv[1])); os.kill(os.getpid(), 9)"


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
