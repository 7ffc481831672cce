"""Gates, ranges and schedules of reward components."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.errors import UsageError
from cohort.rewards.composition import Composition, compose

NAMES = {"math": 1.0, "format": 0.0, "length": 1.0}


def counted(raw: dict[str, float | None], **texts: list[str]) -> dict[str, float | None]:
    """The values that count of one completion."""
    return compose(dict.fromkeys(raw, 1.0), **texts).counted(raw)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("gate", "raw", "value"),
    [
        ("math if format", {"math": 1.0, "format": 1.0}, 1.0),
        ("math if format", {"math": 1.0, "format": 0.99}, 0.0),
        ("math if format else -1", {"math": 1.0, "format": 0.0}, -1.0),
        ("math if not format", {"math": 0.5, "format": 0.0}, 0.5),
        ("math if not format", {"math": 0.5, "format": 1.0}, 0.0),
        ("math if format>=.5", {"math": 1.0, "format": 0.5}, 1.0),
        ("math if format > 0.5", {"math": 1.0, "format": 0.5}, 0.0),
        ("math if format<1e-1 else 2", {"math": 1.0, "format": 0.5}, 2.0),
        ("math if format<=-0.5", {"math": 1.0, "format": -0.5}, 1.0),
        ("* if format", {"math": 1.0, "format": 0.0}, 0.0),
        # What a gate reads does not apply: nor does what it guards.
        ("math if format", {"math": 1.0, "format": None}, None),
        ("math if format else -1", {"math": None, "format": 0.0}, None),
    ],
)
def test_a_gate_lets_a_component_count(gate: str, raw: dict[str, float | None], value: float | None) -> None:
    assert counted(raw, gates=[gate]) == {**raw, "math": value}


def test_a_gate_reads_what_earlier_gates_left_and_no_clips() -> None:
    raw: dict[str, float | None] = {"length": 0.9, "math": 1.0, "format": 0.0}
    # Written in the other order than they apply in.
    gates = ["length if math", "math if format"]
    assert counted(raw, gates=gates) == {"length": 0.0, "math": 0.0, "format": 0.0}
    assert counted({**raw, "format": 1.0}, gates=gates, clips=["math 0..0.5", "length ..0.25"]) == {
        "length": 0.25,
        "math": 0.5,
        "format": 1.0,
    }
    # What counts behind a closed gate is what was asked for, whatever the range.
    assert counted(raw, gates=["length,math if format else -1"], clips=["math 0..1"])["math"] == -1.0
    # All conditions hold, and all gates of a component.
    assert counted(raw, gates=["length if math and format"])["length"] == 0.0
    assert counted(raw, gates=["length if math", "length if format"])["length"] == 0.0
    assert counted({**raw, "format": 2.0}, gates=["length if math and format"])["length"] == 0.9
    # One that fails decides, whether the other applies or not.
    assert counted({"length": 1.0, "math": None, "format": 0.0}, gates=["length if math and format"])["length"] == 0.0


@pytest.mark.parametrize(
    ("clip", "values"),
    [("math 0..0.5", (0.0, 0.25, 0.5)), ("math ..0.5", (-1.0, 0.25, 0.5)), ("math -.5..", (-0.5, 0.25, 2.0))],
)
def test_a_clip_bounds_a_component(clip: str, values: tuple[float, ...]) -> None:
    assert tuple(counted({"math": raw}, clips=[clip])["math"] for raw in (-1.0, 0.25, 2.0)) == values
    assert counted({"math": None}, clips=[clip]) == {"math": None}


def test_a_schedule_goes_straight_from_point_to_point() -> None:
    made = compose(NAMES, schedules=["length 10:0 110:0.2 120:-1"])
    weights = {step: made.weight("length", 1.0, step) for step in (0, 10, 60, 110, 115, 120, 10_000)}
    assert weights == pytest.approx({0: 0.0, 10: 0.0, 60: 0.1, 110: 0.2, 115: -0.4, 120: -1.0, 10_000: -1.0})
    assert made.weight("length", 1.0, None) == -1.0
    assert made.weight("math", 0.3, 60) == 0.3


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.floats(-5, 5)), min_size=2, max_size=5, unique_by=lambda p: p[0]),
    st.integers(0, 1100),
)
def test_a_schedule_stays_between_its_points(points: list[tuple[int, float]], step: int) -> None:
    text = " ".join(f"{at}:{weight:.6f}" for at, weight in sorted(points))
    made = compose(NAMES, schedules=[f"math {text}"])
    weights = made.schedules["math"][1]
    assert min(weights) - 1e-9 <= made.weight("math", 1.0, step) <= max(weights) + 1e-9


@given(st.dictionaries(st.sampled_from("abcd"), st.none() | st.floats(-3, 3), min_size=1))
def test_without_gates_and_clips_nothing_changes(raw: dict[str, float | None]) -> None:
    assert Composition().counted(raw) == (raw, set())
    assert Composition().changed == ()


def test_what_is_changed_is_named() -> None:
    made = compose(NAMES, gates=["math if format"], clips=["length 0..1", "math 0..1"])
    assert made.changed == ("math", "length")
    assert made.counted({"math": 1.0, "format": 0.0, "length": 5.0}) == (
        {"math": 0.0, "format": 0.0, "length": 1.0},
        {"math"},
    )
    assert made.clips["length"] == (0.0, 1.0)
    assert compose(NAMES, clips=["length 0.."]).clips["length"] == (0.0, math.inf)


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ({"gates": ["math"]}, "reward_gate 'math': write NAME if OTHER"),
        ({"gates": ["math if"]}, "write NAME if OTHER"),
        ({"gates": ["math if format >= x"]}, "write NAME if OTHER"),
        ({"gates": ["math if format else none"]}, "write NAME if OTHER"),
        (
            {"gates": ["maht if format"]},
            "there is no reward 'maht' here (there are: math, format, length); did you mean math?",
        ),
        ({"gates": ["math if fromat>0"]}, "there is no reward 'fromat' here"),
        ({"gates": ["math if not format>0"]}, "not goes before a name alone"),
        ({"gates": ["math if math"]}, "in a circle (math -> math)"),
        (
            {"gates": ["math if format", "format if length", "length if math"]},
            "in a circle (math -> format -> length -> math): leave one of them out",
        ),
        ({"gates": ["* if math and format and length"]}, "there is no other reward that it could guard"),
        ({"clips": ["length"]}, "reward_clip 'length': write NAME LOW..HIGH"),
        ({"clips": ["length .."]}, "write NAME LOW..HIGH"),
        ({"clips": ["length 1..0"]}, "the range is empty"),
        ({"clips": ["length 1..1"]}, "the range is empty"),
        ({"clips": ["lenght 0..1"]}, "did you mean length?"),
        ({"clips": ["math 0..1", "math 0..2"]}, "'math' has one already"),
        ({"schedules": ["length"]}, "write NAME STEP:WEIGHT"),
        ({"schedules": [""]}, "write NAME STEP:WEIGHT"),
        ({"schedules": ["length 0:1"]}, "with two points at least"),
        ({"schedules": ["length 0:1 5"]}, "write NAME STEP:WEIGHT"),
        ({"schedules": ["length 0:1 0:2"]}, "the steps must ascend"),
        ({"schedules": ["length 9:1 3:2"]}, "the steps must ascend"),
        ({"schedules": ["lngth 0:1 3:2"]}, "did you mean length?"),
        ({"schedules": ["format 0:1 3:2"]}, "'format' has the weight 0, too"),
        ({"schedules": ["math 0:1 3:2", "math 0:1 3:2"]}, "'math' has one already"),
    ],
)
def test_what_cannot_be_composed_is_refused(texts: dict[str, list[str]], says: str) -> None:
    with pytest.raises(UsageError) as error:
        compose(NAMES, **texts)  # type: ignore[arg-type]
    assert says in str(error.value)
