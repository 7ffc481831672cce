"""What processes print: read as it comes, the end kept."""

from __future__ import annotations

import os

from cohort.rewards.printed import KEPT, Printed


def test_all_is_read_and_the_end_is_kept():
    printed = Printed()
    ours, theirs = os.pipe()
    printed.follow(ours)
    # Far more than a pipe holds: it would block if nobody read.
    for _ in range(20):
        os.write(theirs, b"x" * 65536)
    os.write(theirs, b"\nthe end\n")
    assert printed.tail(8) == "the end"
    text = printed.take(100)
    assert text.endswith("the end\n")
    assert text.startswith(f"[{20 * 65536 + 9 - 100} bytes before this are left out]\n")
    assert printed.take() == ""
    assert len(printed._last) <= KEPT
    os.close(theirs)
    printed.close()


def test_what_a_process_said_is_told_from_what_those_before_it_said():
    printed = Printed()
    for words in (b"the first", b"the second"):
        ours, theirs = os.pipe()
        printed.follow(ours)
        os.write(theirs, words)
        assert printed.tail() == words.decode()
        os.close(theirs)
        printed.close()
    assert printed.take() == "the firstthe second"


def test_a_child_that_keeps_its_end_open_is_not_waited_for():
    printed = Printed()
    ours, theirs = os.pipe()
    printed.follow(ours)
    os.write(theirs, b"said")
    printed.close()
    assert printed.take() == "said"
    os.close(theirs)
