from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.rewards.code.compare import same_output, same_value, told
from cohort.rewards.code.wire import DEEPEST, MOST, Unspeakable, encode


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("1\n2\n", "1\n2"),
        ("1 \n\n2", "1\n2\n"),
        ("a  b", "a b"),
        ("1\r\n2\r\n", "1\n2\n"),
        ("0.333333333", "0.33333333"),
        ("2.0", "2.00"),
        ("1e3", "1000.0"),
        ("", "\n"),
    ],
)
def test_the_same_output(said: str, expected: str) -> None:
    assert same_output(said, expected)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("12", "1\n2"),
        ("1 2", "1\n2"),
        ("YES", "yes"),
        ("2.1", "2"),
        ("2.0", "2"),
        ("nan", "1.0"),
        ("inf", "1.0"),
        ("1_0.0", "10.0"),
        ("0x10", "16.0"),
        ("1 2 3", "1 2"),
        ("", "0"),
        ("٤٢", "42"),
        ("9" * 5000 + ".0", "1.0"),
    ],
)
def test_another_output(said: str, expected: str) -> None:
    assert not same_output(said, expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, (2,)), [1, [2]]),
        (2, 2.0),
        (2.0, 2),
        (0.1 + 0.2, 0.3),
        ({1: [2]}, {"1": [2]}),
        ({"a": (1,)}, {"a": [1]}),
        (None, None),
        (True, True),
        ("x", "x"),
    ],
)
def test_the_same_value(value: object, expected: object) -> None:
    assert same_value(value, expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, "1"),
        ("1", 1),
        ([1], 1),
        ([1, 2], [1]),
        ({1}, [1]),
        (0.5, 0.6),
        (float("nan"), 0.5),
        ({"a": 1}, {"a": 1, "b": 2}),
        (None, 0),
        (2, True),
        ("ab", ["a", "b"]),
        (1 << 5000, 1.5),
    ],
)
def test_another_value(value: object, expected: object) -> None:
    assert not same_value(value, expected)


_plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.frozensets(st.integers() | st.text())
        | st.sets(st.integers())
    ),
    max_leaves=20,
)


@given(_plain)
def test_a_plain_value_comes_out_as_it_went_in(value: object) -> None:
    returned, found = told(b"v" + encode(value).encode())
    assert returned
    assert found == value
    assert type(found) is type(value)


def test_values_of_the_standard_library_are_told() -> None:
    import datetime
    from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
    from decimal import Decimal
    from fractions import Fraction

    day = datetime.datetime(2020, 1, 2, 3, 4, 5)
    for value in (
        Decimal("1.50"),
        Fraction(1, 3),
        day,
        day.date(),
        day.time(),
        datetime.timedelta(1, 2, 3),
        1 << 20_000,
    ):
        assert told(b"v" + encode(value).encode()) == (True, value)
    pair = namedtuple("pair", "a b")(1, 2)
    for value, plain in (
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(int, a=1), {"a": 1}),
        (deque([1, 2]), [1, 2]),
        (pair, (1, 2)),
        (range(3), [0, 1, 2]),
        ({1: 2}.keys(), {1}),
    ):
        found = told(b"v" + encode(value).encode())[1]
        assert found == plain
        assert type(found) in (dict, list, tuple, set)


def test_a_subclass_says_nothing_of_its_own() -> None:
    class Seven(int):
        def __eq__(self, other: object) -> bool:
            return True

        def __str__(self) -> str:
            return "42"

        __repr__ = __str__
        __hash__ = int.__hash__

        def __index__(self) -> int:
            return 42

    class Text(str):
        def __str__(self) -> str:
            return "42"

    class Many(list):  # type: ignore[type-arg]
        def __iter__(self):  # type: ignore[no-untyped-def]
            return iter([42])

    assert told(b"v" + encode(Seven(7)).encode())[1] == 7
    assert told(b"v" + encode(Text("x")).encode())[1] == "x"
    assert told(b"v" + encode(Many([1])).encode())[1] == [1]


@pytest.mark.parametrize("value", [object(), len, iter([]), int, NotImplemented, ...])
def test_what_is_not_plain_is_not_told(value: object) -> None:
    with pytest.raises(Unspeakable):
        encode(value)


def test_what_is_told_by_a_hand_of_the_programs_own_is_read_with_care() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    nested = '["l",' * (DEEPEST + 10) + "1" + "]" * (DEEPEST + 10)
    many = '["s",' + ",".join(str(i) for i in range(2 * MOST + 1)) + "]"
    for text in (
        b"",
        b"{}",
        b"[]",
        b"[1]",
        b'["o",1]',
        b'["zzz"]',
        b'["l",[2]]',
        b'["s",["l"]]',
        b'["d",1]',
        b'["n","zz"]',
        b'["x","1"]',
        b'["Decimal","x"]',
        b'["Fraction","1/0"]',
        b'["date","x"]',
        b'["b","x"]',
        b'["r",0,1,1]',
        b"9" * 100,
        b"nope",
        deep,
        nested.encode(),
        many.encode(),
        b'{"a":1}',
        b'["c","a","b"]',
        b'["timedelta","x"]',
        b'["Fraction","' + b"9" * 5000 + b'"]',
    ):
        with pytest.raises(Unspeakable):
            told(b"v" + text)
    # Constants that JSON does not have are plain numbers here.
    assert told(b"vNaN")[1] != told(b"vNaN")[1]
