"""The process that rewards run in: its messages, its calls, and what it accepts as values."""

from __future__ import annotations

import io
import subprocess
import sys
from decimal import Decimal

import dill
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.rewards.spec import parse
from cohort.rewards.worker import BadValueError, accepted, call, check, read_frame, write_frame

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(deadline=None)
@given(st.lists(PLAIN, max_size=4))
def test_messages_arrive_as_they_were_sent(messages):
    stream = io.BytesIO()
    for message in messages:
        write_frame(stream, message)
    stream.seek(0)
    assert [read_frame(stream) for _ in messages] == messages
    with pytest.raises(EOFError):
        read_frame(stream)


def test_a_message_cut_short_is_the_end():
    stream = io.BytesIO()
    write_frame(stream, {"values": [1.0, 2.0]})
    whole = stream.getvalue()
    for length in range(len(whole)):
        with pytest.raises(EOFError):
            read_frame(io.BytesIO(whole[:length]))


GIVEN = {"prompts": ["p"], "completions": ["c"], "completion_ids": None, "answer": ["a"], "level": [1]}


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (lambda prompts, completions, completion_ids, **columns: None, set(GIVEN)),
        (lambda **columns: None, set(GIVEN)),
        (lambda completions: None, {"completions"}),
        (lambda completions, answer, other=None: None, {"completions", "answer"}),
        (lambda: None, set()),
    ],
)
def test_a_function_gets_what_it_names_and_everything_with_kwargs(function, names):
    assert accepted(function, GIVEN) == {name: GIVEN[name] for name in names}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 0.5, None], [1.0, 0.5, None]),
        ((1, 0.5, None), [1.0, 0.5, None]),
        ([True, False, -2], [1.0, 0.0, -2.0]),
        (np.array([1.0, 0.5, 0.25]), [1.0, 0.5, 0.25]),
        (np.array([1, 0, 2], dtype=np.int8), [1.0, 0.0, 2.0]),
        (np.array([True, False, True]), [1.0, 0.0, 1.0]),
        ([np.float32(0.5), np.bool_(True), np.int64(3)], [0.5, 1.0, 3.0]),
        (torch.tensor([1.0, 0.5, 0.25], dtype=torch.bfloat16), [1.0, 0.5, 0.25]),
        (torch.tensor([1.0, 0.5, 0.25], requires_grad=True), [1.0, 0.5, 0.25]),
        ([torch.tensor(1.0), torch.tensor(True), torch.tensor([2])], [1.0, 1.0, 2.0]),
    ],
)
def test_numbers_of_every_usual_kind_become_floats(values, expected):
    out = check(values, 3)
    assert out == expected
    assert all(value is None or type(value) is float for value in out)


def test_no_completions_have_no_values():
    assert check([], 0) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "returned NoneType, not a list of 2 numbers"),
        (1.0, "returned float, not a list of 2 numbers"),
        ({0: 1.0, 1: 1.0}, "returned dict, not a list of 2 numbers"),
        ({1.0, 2.0}, "returned set, not a list of 2 numbers"),
        ((x for x in (1.0, 2.0)), "returned generator, not a list of 2 numbers"),
        ([], "returned 0 values for 2 completions"),
        ([1.0], "returned 1 values for 2 completions"),
        ([1.0, 2.0, 3.0], "returned 3 values for 2 completions"),
        (np.zeros(3), "returned 3 values for 2 completions"),
        ([1.0, "1"], "returned '1' for completion 1, which is no number"),
        ("ab", "returned 'a' for completion 0, which is no number"),
        ([[1.0], [2.0]], r"returned \[1.0\] for completion 0, which is no number"),
        (np.zeros((2, 1)), r"returned \[0.0\] for completion 0, which is no number"),
        ([1.0, 1j], "returned 1j for completion 1, which is no number"),
        ([1.0, Decimal(1)], "for completion 1, which is no number"),
        ([1.0, float("nan")], "returned nan for completion 1"),
        ([float("inf"), 1.0], "returned inf for completion 0"),
        ([float("-inf"), 1.0], "returned -inf for completion 0"),
        (torch.tensor([0.0, float("nan")]), "returned nan for completion 1"),
    ],
)
def test_what_is_no_list_of_finite_numbers_is_refused(values, message):
    with pytest.raises(BadValueError, match=message):
        check(values, 2)


def test_a_call_gives_values_or_what_went_wrong():
    async def later(completions):
        return [0.5] * len(completions)

    def broken(completions):
        raise KeyError("no such thing")

    arguments = {"completions": ["a", "b"]}
    assert call(lambda completions: [1, None], arguments, 2) == {"values": [1.0, None]}
    assert call(later, arguments, 2) == {"values": [0.5, 0.5]}
    assert call(lambda completions: [1], arguments, 2) == {"error": "it returned 1 values for 2 completions"}
    failed = call(broken, arguments, 2)
    assert failed["error"] == "KeyError: 'no such thing'"
    assert "in broken" in failed["traceback"]


def test_a_call_says_which_argument_is_missing():
    failed = call(lambda completions, hardness: [1.0], {"completions": ["a"]}, 1)
    assert "TypeError" in failed["error"]
    assert "hardness" in failed["error"]


def test_the_process_serves_calls_until_its_parent_goes_away():
    worker = subprocess.Popen(
        [sys.executable, "-m", "cohort.rewards.worker"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip

    def ask(message):
        write_frame(worker.stdin, message)
        return read_frame(worker.stdout)

    specs = parse(["exact", "format:^a"])
    assert ask({"path": [], "load": dill.dumps(specs)}) == {"ready": True}
    arguments = {"prompts": ["p"], "completions": ["a"], "completion_ids": None, "answer": ["b"]}
    for index, expected in ((0, 0.0), (1, 1.0), (0, 0.0)):
        message = {"reward": index, "arguments": arguments, "rows": 1, "timeout": 60.0}
        assert ask(message) == {"values": [expected]}
    assert "there is no reward 'nothing'" in ask({"path": [], "load": dill.dumps(parse(["nothing"]))})["error"]
    out, err = worker.communicate(timeout=10)
    assert (worker.returncode, out, err) == (0, b"", b"")
