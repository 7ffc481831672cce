"""Which arguments a function takes, and what it is given."""

from __future__ import annotations

import functools

import pytest

from cohort.rewards.interface import bound, interface

GIVEN = {
    "prompts": ["p"],
    "completions": ["c"],
    "completion_ids": None,
    "answer": ["a"],
    "level": [1],
    "max_new_tokens": [9],
}


class Callable:
    def __call__(self, completions, answer):
        return None

    @classmethod
    def of_class(cls, completions):
        return None

    @staticmethod
    def static(completions, *, level):
        return None

    def method(self, completions, **columns):
        return None


class Later:
    async def __call__(self, completions):
        return None


async def later(completions, **columns):
    return None


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (lambda prompts, completions, completion_ids, **columns: None, set(GIVEN)),
        (lambda **columns: None, set(GIVEN)),
        (lambda *args, **columns: None, set(GIVEN)),
        (lambda max_new_tokens, **columns: None, set(GIVEN)),
        (lambda completions: None, {"completions"}),
        (lambda completions, answer, other=None: None, {"completions", "answer"}),
        (lambda *, completions: None, {"completions"}),
        (lambda: None, set()),
        (Callable(), {"completions", "answer"}),
        (Callable.of_class, {"completions"}),
        (Callable.static, {"completions", "level"}),
        (Callable().method, set(GIVEN)),
        (functools.partial(lambda completions, level, scale: None, scale=2), {"completions", "level"}),
    ],
)
def test_a_function_gets_what_it_names_and_everything_with_kwargs(function, names):
    found = interface(function)
    args, named = bound(found, GIVEN)
    assert (args, named) == ([], {name: GIVEN[name] for name in names})
    assert found.missing(list(GIVEN)) == []


def test_what_can_only_be_given_by_its_place_is():
    def placed(completions, answer, /, level, other=1, **columns):
        return None

    found = interface(placed)
    assert bound(found, GIVEN) == (
        [["c"], ["a"]],
        {"prompts": ["p"], "completion_ids": None, "level": [1], "max_new_tokens": [9]},
    )
    args, named = bound(interface(lambda completions, hardness=3, /: None), GIVEN)
    assert (args, named) == ([["c"]], {})


def test_what_nobody_gives_is_missing_unless_it_has_a_default():
    def asks(completions, hardness, /, answer, *, metadata, other=None, **columns):
        return None

    assert interface(asks).missing(list(GIVEN)) == ["hardness", "metadata"]


def test_a_function_whose_arguments_cannot_be_seen_gets_everything():
    # `max` has two forms, and so no signature.
    found = interface(max)
    assert found.everything
    assert found.missing([]) == []


@pytest.mark.parametrize(
    ("function", "waits"),
    [(later, True), (Later(), True), (functools.partial(later, scale=1), True), (Later, False), (len, False)],
)
def test_it_is_known_which_functions_wait(function, waits):
    assert interface(function).waits is waits
