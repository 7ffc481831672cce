"""Functions on their way to another process: what they hold, and what cannot go."""

from __future__ import annotations

import functools
import sqlite3
import threading

import dill
import pytest

from cohort.errors import UsageError
from cohort.rewards.sending import fingerprints, holdings, packed_functions


def closing_over(value):
    def reward(completions):
        return [float(bool(value))] * len(completions)

    return reward


class Holding:
    def __init__(self, value):
        self.value = value

    def __call__(self, completions):
        return [float(bool(self.value))] * len(completions)

    def method(self, completions):
        return self(completions)


def with_default(value):
    def reward(completions, held=value):
        return [float(bool(held))] * len(completions)

    return reward


def nested(value):
    inner = closing_over(value)
    return lambda completions: inner(completions)


@pytest.fixture
def unsendable(tmp_path):
    file = (tmp_path / "open").open("w")
    connection = sqlite3.connect(":memory:")
    yield {
        "threading lock": (threading.Lock(), "_thread.lock"),
        "reentrant lock": (threading.RLock(), "_thread.RLock"),
        "connection": (connection, "sqlite3.Connection"),
        "open file": (file, "_io.TextIOWrapper"),
        "generator": ((x for x in "ab"), "generator"),
    }
    file.close()
    connection.close()


@pytest.mark.parametrize("name", ["threading lock", "reentrant lock", "connection", "open file", "generator"])
@pytest.mark.parametrize(
    ("holder", "held"),
    [
        (closing_over, "value"),
        (nested, "value"),
        (with_default, "a default"),
        (Holding, "self.value"),
        (lambda value: Holding(value).method, "self.value"),
        (lambda value: functools.partial(lambda completions, value: [1.0], value=value), "an argument"),
        (lambda value: closing_over([value]), "value"),
    ],
)
def test_what_cannot_be_sent_is_named_with_its_function_and_what_to_do(unsendable, name, holder, held):
    value, kind = unsendable[name]
    with pytest.raises(UsageError) as error:
        packed_functions({"fine": closing_over(1), "culprit": holder(value)})
    message = str(error.value)
    assert "reward 'culprit'" in message
    assert f"it holds '{held}' ({kind})" in message or f"it holds '{held}' (list)" in message
    assert "path/to/file.py:culprit" in message
    assert "reward_process = here" in message


def test_what_two_functions_share_stays_shared():
    shared = []

    def first(completions):
        shared.append(1)
        return [0.0]

    def second(completions):
        return [len(shared)]

    found = dill.loads(packed_functions({"first": first, "second": second}))
    found["first"](["a"])
    assert found["second"](["a"]) == [1]
    assert shared == []


def test_everything_that_a_function_reaches_is_found():
    value = [1]
    found = dict(holdings(nested(value)))
    assert found["value"] is value
    assert dict(holdings(Holding(value)))["self.value"] is value


def test_a_change_of_what_is_held_shows():
    value, count = [], {"n": 0}

    def collects(completions):
        value.extend(completions)
        count["n"] += 1

    before = fingerprints(collects)
    assert fingerprints(collects) == before
    collects(["a"])
    after = fingerprints(collects)
    assert {name for name in before if before[name] != after[name]} == {"value", "count"}


def test_what_is_large_is_not_looked_at():
    assert "value" not in fingerprints(closing_over(["x" * 100] * 100_000 + [str(i) for i in range(200_000)]))
