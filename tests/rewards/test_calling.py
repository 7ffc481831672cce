"""Calls of reward functions, and what becomes of what they do."""

from __future__ import annotations

import asyncio
import os

import pytest

from cohort.rewards.calling import TrainerState, call, plain

ARGUMENTS = {"completions": ["a", "b"], "answer": ["x", "y"]}


def one(function, rows=2, **options):
    (reply,) = call(
        [function], lambda: {k: list(v) for k, v in ARGUMENTS.items()}, rows, TrainerState(3, 10), **options
    )
    return reply


def test_a_call_gives_values_or_what_went_wrong():
    async def later(completions):
        return [0.5] * len(completions)

    def broken(completions):
        raise KeyError("no such thing")

    assert one(lambda completions: [1, None])["values"] == [1.0, None]
    assert one(later)["values"] == [0.5, 0.5]
    assert one(lambda completions: [1]) == {"error": "it returned 1 values for 2 completions"}
    failed = one(broken)
    assert failed["error"] == "KeyError: 'no such thing'"
    assert "in broken" in failed["traceback"]


def test_a_call_says_which_argument_is_missing():
    failed = one(lambda completions, hardness: [1.0])
    assert "TypeError" in failed["error"]
    assert "hardness" in failed["error"]


class NoText(Exception):
    def __str__(self):
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "error", [SystemExit(3), GeneratorExit(), RecursionError("deep"), NoText(), Exception("x" * 9999)]
)
def test_whatever_is_raised_is_a_failure_of_bounded_size(error):
    def raises(completions):
        raise error

    async def later(completions):
        raise error

    def halfway(completions):
        yield 1.0
        raise error

    for function in (raises, later, halfway):
        failed = one(function)
        assert type(error).__name__ in failed["error"]
        assert len(failed["error"]) <= 2000
        assert len(failed["traceback"]) <= 8000


def test_an_interrupt_is_the_user_s_unless_nobody_is_there():
    def interrupted(completions):
        raise KeyboardInterrupt

    async def later(completions):
        raise KeyboardInterrupt

    for function in (interrupted, later):
        assert "KeyboardInterrupt" in one(function, contained=True)["error"]
        with pytest.raises(KeyboardInterrupt):
            one(function)


def test_functions_that_wait_do_so_side_by_side():
    meeting = {}

    async def first(completions):
        meeting["event"] = asyncio.Event()
        await asyncio.wait_for(meeting["event"].wait(), 20)
        return [1.0, 1.0]

    async def second(completions):
        while "event" not in meeting:
            await asyncio.sleep(0)
        meeting["event"].set()
        return [2.0, 2.0]

    replies = call([first, second], lambda: dict(ARGUMENTS), 2, TrainerState())
    assert [reply["values"] for reply in replies] == [[1.0, 1.0], [2.0, 2.0]]


def test_none_sees_what_another_does_to_the_arguments():
    def clears(completions):
        completions.clear()
        return [0.0, 0.0]

    replies = call(
        [clears, lambda completions: [1.0] * len(completions)], lambda: {"completions": ["a", "b"]}, 2, TrainerState()
    )
    assert [reply["values"] for reply in replies] == [[0.0, 0.0], [1.0, 1.0]]


def test_the_order_of_arguments_is_trl_s():
    seen = []

    def order(**given):
        seen.extend(given)
        return [0.0, 0.0]

    one(order)
    assert seen == ["completions", "answer", "trainer_state", "log_extra", "log_metric"]


def test_trainer_state_says_where_the_run_stands_and_what_it_does_not_have():
    assert one(lambda trainer_state: [trainer_state.global_step, trainer_state.max_steps])["values"] == [3.0, 10.0]
    failed = one(lambda trainer_state: [trainer_state.best_metric] * 2)
    assert "trainer_state has global_step, max_steps, epoch, num_train_epochs, is_local" in failed["error"]
    assert "but no 'best_metric'" in failed["error"]


@pytest.mark.parametrize(
    ("step", "per_step", "prompts", "epoch", "epochs"),
    [(0, 4, 8, 0.0, 5), (3, 4, 8, 1.5, 5), (1, 3, 7, 3 / 7, 5), (3, 4, 0, 0.0, 0)],
)
def test_epochs_are_passes_over_the_prompts(step, per_step, prompts, epoch, epochs):
    state = TrainerState()
    state.stand(step, 10, per_step=per_step, prompts=prompts)
    assert (state.global_step, state.max_steps, state.epoch, state.num_train_epochs) == (step, 10, epoch, epochs)


def test_what_is_logged_comes_with_the_values():
    def logs(completions, log_extra, log_metric):
        log_extra("upper", [c.upper() for c in completions])
        log_extra("short", [1])
        log_metric("length", 3)
        log_metric("length", 5.0)
        return [0.0, 0.0]

    reply = one(logs)
    assert reply["extra"] == {"upper": ["A", "B"]}
    assert reply["metrics"] == {"length": [3.0, 5.0]}
    assert reply["notes"] == ["log_extra('short') was given 1 values for 2 completions: they are not recorded"]


def test_logged_values_are_plain():
    import numpy as np
    import torch

    assert [plain(value) for value in (None, True, 2, 0.5, "t")] == [None, True, 2, 0.5, "t"]
    assert [plain(value) for value in (np.float32(0.5), torch.tensor(3), 2**70)] == [0.5, 3, str(2**70)]
    assert plain(["a"]) == "['a']"
    assert len(plain("x" * 99_999)) == 10_000


def test_a_function_that_goes_elsewhere_is_brought_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def goes(completions):
        os.chdir("/")
        return [0.0, 0.0]

    assert one(goes)["values"] == [0.0, 0.0]
    assert os.getcwd() == str(tmp_path)


def test_a_forked_child_does_not_come_back_in_its_parent_s_place():
    def forks(completions):
        child = os.fork()
        if child == 0:
            return [9.0, 9.0]
        _, status = os.waitpid(child, 0)
        return [float(os.waitstatus_to_exitcode(status)), 1.0]

    parent = os.getpid()
    assert one(forks)["values"] == [0.0, 1.0]
    assert os.getpid() == parent
