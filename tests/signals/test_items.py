"""Lists in texts: sets, and what the ranks of a list are worth."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.signals.items import METRICS, hits, set_of

HITS = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=12)
TITLES = st.lists(st.sampled_from(["heat", "alien", "up", "brazil", "ran"]), unique=True, min_size=1, max_size=5)


@pytest.mark.parametrize(
    "text",
    [
        "red, green, blue",
        "Blue; the red; green.",
        "- red\n- green\n- blue",
        "1. Red\n2. Blue\n\n3. Green",
        '["blue", "green", "red", "red"]',
        "{red, green, blue}",
        r"\{red, blue, green\}",
        "[red, green, and blue]",
        "red, blue, or green",
    ],
)
def test_one_set_in_many_spellings(text):
    assert set_of(text) == set_of(["green", "red", "blue"])


def test_sets_of_other_items_differ():
    assert set_of("red, green") != set_of("red, green, blue")
    assert set_of("Tom and Jerry") == set_of(["Tom and Jerry"])
    assert set_of("") == frozenset()
    assert set_of("1,000") == set_of("1000") != set_of("1, 000")
    assert set_of("{100, 200}") == set_of([200, 100])
    assert set_of("1, 2, 3") == set_of([3, 2, 1.0]) == set_of("[1, 2, 3]")


@given(HITS, st.integers(0, 5))
def test_metrics_are_shares_that_a_further_hit_never_lowers(found, more):
    wanted = int(sum(found)) + more + 1
    for name, metric in METRICS.items():
        value = metric(found, wanted)
        assert value >= 0.0
        assert name == "dcg" or value <= 1.0 + 1e-12
        if 0.0 in found:
            place = found.index(0.0)
            assert metric([*found[:place], 1.0, *found[place + 1 :]], wanted) >= value


@given(TITLES)
def test_the_true_list_is_full_marks_in_any_order_and_early_hits_are_worth_more(titles):
    found = hits("\n".join(titles), titles[::-1], lines=len(titles))
    assert METRICS["ndcg"](found, len(titles)) == pytest.approx(1.0)
    assert METRICS["recall"](found, len(titles)) == METRICS["mrr"](found, len(titles)) == 1.0
    early, late = (METRICS["ndcg"](each, 1) for each in ([1.0, 0.0], [0.0, 1.0]))
    assert early > late > 0.0
