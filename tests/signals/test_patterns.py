"""Regular expressions with a time limit."""

from __future__ import annotations

import time

import pytest

from cohort.errors import UsageError
from cohort.signals import patterns
from cohort.signals.patterns import compiled, matches

# The time that each takes doubles with every character.
PATHOLOGICAL = [(r"^(a|aa)+$", "a" * 80 + "b"), (r"^(.*?,){25}P", "1," * 300), (r"(?i)^(ß|ss|s)+$", "s" * 90 + "x")]


@pytest.mark.parametrize(("pattern", "text"), PATHOLOGICAL)
def test_a_pathological_pattern_is_given_up(monkeypatch, pattern, text):
    monkeypatch.setattr(patterns, "TEXT", 0.1)
    begin = time.process_time()
    asked = compiled(pattern, "here")
    assert matches([(asked, text), (compiled(".", "here"), text)]) == ([False, True], [0])
    with pytest.raises(TimeoutError):
        patterns.Budget().match(asked, text)
    assert time.process_time() - begin < 2


def test_a_batch_has_a_limit_and_what_is_quick_is_still_judged_behind_it(monkeypatch):
    monkeypatch.setattr(patterns, "TEXT", 0.1)
    monkeypatch.setattr(patterns, "BATCH", 0.2)
    slow, text = compiled(*PATHOLOGICAL[0][:1], "here"), PATHOLOGICAL[0][1]
    begin = time.process_time()
    found, late = matches([*[(slow, text)] * 30, (slow, "aa"), (compiled("^x$", "here"), "x")])
    assert (found, late) == ([False] * 30 + [True, True], list(range(30)))
    assert time.process_time() - begin < 2


@pytest.mark.parametrize("pattern", ["(", "[", "*a", "(" * 50_000, r"\p{Nope}", None, 3])
def test_what_is_none_is_refused_with_its_place(pattern):
    with pytest.raises(UsageError, match=r"line 7: .*regular expression"):
        compiled(pattern, "line 7")


def test_a_whole_text_is_matched_where_that_is_asked():
    asked = compiled(r"\d+", "here")
    assert matches([(asked, "12"), (asked, "12 apples")], whole=True)[0] == [True, False]
    assert matches([(asked, "12"), (asked, "12 apples")])[0] == [True, True]
