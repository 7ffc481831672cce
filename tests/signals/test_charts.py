"""Charts by their data."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.errors import UsageError
from cohort.signals.charts import (
    Chart,
    Series,
    best,
    chart_of,
    charts_of,
    composite,
    data_f1,
    ratings,
    shape,
    text_reward,
)

HEIGHT = st.integers(1, 99).map(float)
POINTS = st.dictionaries(st.sampled_from("abcdef"), HEIGHT, min_size=1).map(lambda each: tuple(each.items()))
CHART = st.lists(POINTS, min_size=1, max_size=3).map(
    lambda each: Chart("bar", tuple(Series(f"series {i}", points) for i, points in enumerate(each)))
)
PARTS = st.tuples(
    st.sampled_from([0.0, 0.4, 0.9989, 1.0]), st.booleans(), st.booleans(), st.integers(0, 5), st.integers(0, 5)
)


def one(*points: Any, kind: str | None = "bar", label: str = "") -> Chart:
    return Chart(kind, (Series(label, points),))


@given(CHART)
def test_a_chart_has_all_its_data_in_any_order(chart):
    turned = Chart("line", tuple(Series(each.label, each.points[::-1]) for each in reversed(chart.series)))
    assert data_f1(turned, chart) == data_f1(chart, turned) == 1.0
    assert ratings(1.0, chart) == (5, 5)


@given(CHART, CHART)
def test_a_point_that_is_wrong_or_too_much_costs(chart, other):
    assert 0.0 <= data_f1(chart, other) <= 1.0
    more = Chart("bar", (*chart.series, Series("", (("another", 1.0),))))
    assert data_f1(more, chart) < 1.0
    wrong = chart.series[0]._replace(points=tuple((x, 2 * y) for x, y in chart.series[0].points))
    assert data_f1(Chart("bar", (wrong, *chart.series[1:])), chart) < 1.0


def test_points_are_equal_up_to_rounding_and_spelling():
    wanted = one(("North  America", 10.0), (2019.0, 3.333), ("1,000", 1.0))
    assert data_f1(one(("north america", 10.04), ("2019", 3.33), (1000.0, 1.0)), wanted) == 1.0
    assert data_f1(one(("north america", 10.5), (2020.0, 3.33), (1000.0, 1.0)), wanted) == pytest.approx(1 / 3)


def test_a_pie_shows_shares():
    pie = one(("a", 0.25), ("b", 0.75), kind="pie")
    assert data_f1(pie, one(("a", 10.0), ("b", 30.0))) == data_f1(one(("a", 10.0), ("b", 30.0)), pie) == 1.0


def test_series_that_are_told_apart_belong_to_their_names():
    wanted = Chart("bar", (Series("men", (("a", 1.0), ("b", 2.0))), Series("women", (("a", 3.0), ("b", 4.0)))))
    assert data_f1(wanted, wanted) == 1.0
    names = Chart("bar", tuple(each._replace(label="") for each in wanted.series))
    assert data_f1(names, wanted) == 1.0
    swapped = Chart("bar", (wanted.series[0]._replace(label="women"), wanted.series[1]._replace(label="men")))
    assert data_f1(swapped, wanted) == 0.0


def test_the_best_of_several_charts_counts():
    assert best([], one(("a", 1.0))) == (0.0, None)
    assert best([one(("b", 1.0)), one(("a", 1.0))], one(("a", 1.0))) == (1.0, one(("a", 1.0)))
    assert [ratings(fit, one(("a", 1.0)))[1] for fit in (0.0, 0.3, 0.6, 0.9, 0.99)] == [1, 2, 3, 4, 5]
    assert ratings(0.0, None) == (0, 0)


def test_what_a_program_tells_is_read_with_care():
    axes = {"title": "t", "x": "x", "y": "y", "legend": [], "crowded": False}
    told = {"charts": [{**axes, "series": [{"kind": "line", "label": "s", "points": [[1, 2], ["b", 3]]}]}]}
    assert charts_of(told) == [Chart("line", (Series("s", ((1.0, 2.0), ("b", 3.0))),), 4)]
    for bad in (None, 3, {"charts": [3]}, {"charts": [{"series": 3}]}, {"charts": [{"series": [{"points": [[1]]}]}]}):
        assert charts_of(bad) == []
    several = {**axes, "title": "", "crowded": True, "series": [{"kind": "bar", "points": [["a", 1]]}] * 2}
    assert charts_of({"charts": [several]})[0].readable == 1


@pytest.mark.parametrize(
    "value",
    [
        None,
        "chart",
        {},
        {"series": []},
        {"kind": "sunburst", "series": [{"x": [1], "y": [1]}]},
        {"series": [{"x": [1, 2], "y": [1]}]},
        {"series": [{"x": [1], "y": ["1"]}]},
        {"series": [{"x": [1], "y": [float("nan")]}]},
    ],
)
def test_what_is_no_chart_is_refused(value):
    with pytest.raises(UsageError, match="line 3: expected a chart such as"):
        chart_of(value, "line 3")


@given(PARTS, PARTS)
def test_the_composite_never_falls_where_a_part_improves(one_, other):
    low = tuple(map(min, one_, other))
    for i in range(5):
        better = (*low[:i], max(one_[i], other[i]), *low[i + 1 :])
        assert 0.0 <= composite(*low) <= composite(*better) <= 1.0
    s, executed, intent, readability, correctness = one_
    full = s >= 0.999 and executed and intent and min(readability, correctness) >= 4
    assert (composite(*one_) == 1.0) == full
    assert composite(0.0, False, False, 5, 5) == 0.0


def test_an_exact_answer_is_worth_much_more_than_a_close_one():
    assert text_reward(1.0) - text_reward(0.998) == pytest.approx(0.4 + 0.6 * 0.002)
    assert shape("0", "0.0", False) == 1.0
    assert shape("0", "0.1", False) == shape("five", "5", False) == shape("nan", "1", False) == 0.0
