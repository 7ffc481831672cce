"""Boxes in answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.signals.boxes import box_f1, box_of, iou, mean_iou, read_boxes

BOX = st.tuples(*[st.integers(0, 50)] * 4).map(lambda each: box_of(list(each)))
SOME = st.lists(BOX, max_size=4)


@given(BOX, BOX)
def test_iou_is_symmetric_a_share_and_full_for_the_box_itself(a, b):
    assert iou(a, b) == iou(b, a)
    assert 0.0 <= iou(a, b) <= 1.0
    assert iou(a, a) == float(a[0] < a[2] and a[1] < a[3])


@given(SOME, SOME, st.permutations(range(4)))
def test_order_does_not_matter_and_one_too_many_costs(said, wanted, order):
    mixed = [said[i] for i in order if i < len(said)]
    assert mean_iou(mixed, wanted) == pytest.approx(mean_iou(said, wanted))
    assert box_f1(mixed, wanted, 0.5) == box_f1(said, wanted, 0.5) <= 1.0
    if wanted and len(said) >= len(wanted):
        far = (1000.0, 1000.0, 1001.0, 1001.0)
        assert mean_iou([*said, far], wanted) <= mean_iou(said, wanted)


def test_the_right_boxes_are_full_marks():
    boxes = [(0.0, 0.0, 2.0, 2.0), (5.0, 5.0, 9.0, 9.0)]
    assert mean_iou(boxes[::-1], boxes) == box_f1(boxes, boxes, 1.0) == mean_iou([], []) == 1.0
    assert mean_iou(boxes[:1], boxes) == 0.5
    assert iou((0.0, 0.0, 2.0, 2.0), (1.0, 0.0, 3.0, 2.0)) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("at [10, 20, 110, 220] and (1,2,3,4)", [(10, 20, 110, 220), (1, 2, 3, 4)]),
        ('{"bbox_2d": [0.1, 0.25, 0.5, 1.0]}', [(0.1, 0.25, 0.5, 1.0)]),
        ("from 30, 40, 10, 20", [(10, 20, 30, 40)]),
        ("1, 2, 3", []),
        ("v1.2, 3, 4, 5", []),
    ],
)
def test_boxes_are_read(text, boxes):
    assert read_boxes(text) == boxes


@pytest.mark.parametrize(
    "value", [[1, 2, 3], "1,2,3,4", [1, 2, 3, "4"], [1, 2, 3, True], [1, 2, 3, float("nan")], None]
)
def test_what_is_no_box(value):
    assert box_of(value) is None
