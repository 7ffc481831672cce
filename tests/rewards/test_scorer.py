"""Rewards in a process of their own: the calling convention, and what becomes of every way to fail."""

from __future__ import annotations

import datetime
import os
import sys
import threading
import time
from decimal import Decimal

import numpy as np
import pytest
from PIL import Image

from cohort.errors import UsageError
from cohort.rewards.builtin import KINDS
from cohort.rewards.calling import RewardError
from cohort.rewards.kinds import Kind
from cohort.rewards.scorer import Scorer
from cohort.rewards.spec import parse

ROWS = ["good", "bad", "fine"]
SHORT = 0.7  # seconds, of which a call that does not hang takes next to none


def score(scorer, completions, *, ids=None, **columns):
    return scorer.grade([f"prompt of {c}" for c in completions], completions, ids, columns)


def failing(kind):
    """A reward function that gives every completion 1 and fails in some way where one is "bad"."""

    def reward(completions):
        import ctypes
        import faulthandler
        import time

        if "bad" not in completions:
            return [1.0] * len(completions)
        values = [1.0] * len(completions)
        at = completions.index("bad")
        if kind == "exception":
            raise ZeroDivisionError("made up")
        elif kind == "hang":
            time.sleep(600)
        elif kind == "exit":
            os._exit(7)
        elif kind == "sys.exit":
            sys.exit(9)
        elif kind == "segfault":
            ctypes.string_at(0)
        elif kind == "segfault of a library":
            faulthandler._sigsegv()
        elif kind == "nan":
            values[at] = float("nan")
        elif kind == "inf":
            values[at] = float("inf")
        elif kind == "text":
            values[at] = "high"
        elif kind == "too many":
            values.append(1.0)
        elif kind == "no list":
            return {"bad": 1.0}
        elif kind == "keyboard":
            raise KeyboardInterrupt
        elif kind == "nothing":
            return None
        return values

    return reward


# Kind of failure -> what the message says of it, and what its traceback shows (None: there is none).
FAILURES = {
    "exception": ("ZeroDivisionError: made up", "in reward"),
    "hang": (f"no answer within {SHORT} s (reward_timeout)", "in reward"),
    "exit": ("its process died (exit status 7)", None),
    "sys.exit": ("SystemExit: 9", "in reward"),
    "keyboard": ("KeyboardInterrupt", "in reward"),
    "segfault": ("its process died (signal SIGSEGV)", "in reward"),
    "segfault of a library": ("its process died (signal SIGSEGV)", "in reward"),
    "nan": ("it returned nan (float) for completion 1", None),
    "inf": ("it returned inf (float) for completion 1", None),
    "text": ("it returned 'high' (str) for completion 1, which is no number", None),
    "too many": ("it returned 2 values for 1 completions", None),
    "no list": ("it returned dict, not a list of 1 numbers", None),
    "nothing": ("it returned NoneType, not a list of 1 numbers", None),
}


def of_kind(kind, on_error):
    timeout = SHORT if kind == "hang" else 60.0
    return Scorer(parse([failing(kind)]), timeout=timeout, on_error=on_error)


def check_message(message, kind):
    what, trace = FAILURES[kind]
    assert "reward 'reward' failed on row 2 (prompt 'prompt of bad', completion 'bad')" in message
    assert what in message
    if trace is not None:
        assert trace in message
        assert "test_scorer.py" in message


@pytest.mark.parametrize("kind", FAILURES)
def test_stop_raises_with_the_function_the_row_and_the_traceback(kind):
    with of_kind(kind, "stop") as scorer:
        with pytest.raises(RewardError) as error:
            score(scorer, ROWS)
        check_message(str(error.value), kind)
        # The process is there again, or still, for the next call.
        assert score(scorer, ["good", "fine"]).components == {"reward": [1.0, 1.0]}


@pytest.mark.parametrize(("on_error", "instead"), [("zero", 0.0), ("skip", None)])
@pytest.mark.parametrize("kind", FAILURES)
def test_zero_and_skip_keep_the_other_rows_and_report_the_failed_one(kind, on_error, instead):
    with of_kind(kind, on_error) as scorer:
        scores = score(scorer, ROWS)
        assert scores.components == {"reward": [1.0, instead, 1.0]}
        assert scores.failed == {1}
        assert len(scores.messages) == 1
        check_message(scores.messages[0], kind)
        after = score(scorer, ["good", "fine"])
        assert after.components == {"reward": [1.0, 1.0]}
        assert (after.failed, after.messages) == (set(), [])


@pytest.mark.parametrize("kind", ["exception", "exit"])
def test_every_row_may_fail(kind):
    with of_kind(kind, "skip") as scorer:
        scores = score(scorer, ["bad", "bad"])
    assert scores.components == {"reward": [None, None]}
    assert scores.failed == {0, 1}
    assert len(scores.messages) == 2
    # The traceback of the second says the same as that of the first.
    assert ["Traceback" in message for message in scores.messages] == [kind == "exception", False]


def test_a_failure_of_one_reward_leaves_the_others_alone():
    with Scorer(parse([failing("exit"), "number", failing("nan")]), on_error="skip") as scorer:
        scores = score(scorer, ["1", "bad", "2"], answer=["1", "1", "1"])
    assert scores.components == {"reward": [1.0, None, 1.0], "number": [1.0, 0.0, 0.0], "reward_2": [1.0, None, 1.0]}
    assert scores.failed == {1}


def failing_together(completions):
    if len(completions) > 1:
        raise RuntimeError("one at a time")
    return [0.5]


def test_a_batch_that_fails_though_no_row_does_is_reported_with_its_values_kept():
    with Scorer(parse([failing_together]), on_error="zero") as scorer:
        scores = score(scorer, ROWS)
    assert scores.components == {"failing_together": [0.5, 0.5, 0.5]}
    assert scores.failed == set()
    assert "failed on a batch of 3, though on no row by itself: RuntimeError: one at a time" in scores.messages[0]
    with Scorer(parse([failing_together])) as scorer, pytest.raises(RewardError, match="though on no row by itself"):
        score(scorer, ROWS)


def test_long_texts_are_shortened_in_a_message():
    with Scorer(parse(["number"]), on_error="zero") as scorer:
        scores = scorer.grade(["p" * 500], [[{"role": "assistant", "content": "c" * 500}]], None, {})
    head = scores.messages[0].split("\n")[0]
    assert "p" * 57 + "..." in head
    assert "c" * 57 + "..." in head
    assert "p" * 58 not in head


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [(None, "''"), (5, "'5'"), ([[1]], "'[[1]]'"), ([{"role": "user"}], "''"), ([{"content": "q"}], "'q'")],
)
def test_a_failure_is_reported_whatever_the_prompt_is(prompt, shown):
    with Scorer(parse(["number"]), on_error="zero") as scorer:
        scores = scorer.grade([prompt], ["c"], None, {})
    assert f"failed on row 1 (prompt {shown}, completion 'c'): TypeError" in scores.messages[0]


# the calling convention ------------------------------------------------------------------------------------------


def test_a_function_is_called_as_in_trl(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "def full(prompts, completions, completion_ids, **columns):\n"
        "    assert prompts == ['prompt of a', 'prompt of b']\n"
        "    assert completions == ['a', 'b']\n"
        "    assert completion_ids == [[1], [2, 3]]\n"
        "    assert list(columns) == ['answer', 'level', 'trainer_state', 'log_extra', 'log_metric']\n"
        "    assert (columns['answer'], columns['level']) == (['x', 'y'], [1, 2])\n"
        "    return [1.0, 0.5]\n\n\n"
        "def some(completions, level):\n"
        "    return [level[0], len(completions)]\n\n\n"
        "async def later(completions, **_):\n"
        "    import asyncio\n"
        "    return await asyncio.gather(*(asyncio.sleep(0.01, len(c)) for c in completions))\n\n\n"
        "def partly(completions):\n"
        "    return [None if c == 'a' else True for c in completions]\n\n\n"
        "def arrays(completions):\n"
        "    import numpy\n"
        "    return numpy.linspace(0, 1, len(completions), dtype='float32')\n"
    )
    names = ["full", "some", "later", "partly", "arrays"]
    with Scorer(parse([f"{file}:{name}" for name in names])) as scorer:
        scores = score(scorer, ["a", "b"], ids=[[1], [2, 3]], answer=["x", "y"], level=[1, 2])
    assert scores.components == {
        "full": [1.0, 0.5],
        "some": [1.0, 2.0],
        "later": [1.0, 1.0],
        "partly": [None, 1.0],
        "arrays": [0.0, 1.0],
    }
    assert scores.messages == []


def test_chat_completions_arrive_as_messages():
    def words(prompts, completions):
        assert prompts[0] == [{"role": "user", "content": "q"}]
        return [len(c[0]["content"].split()) for c in completions]

    with Scorer(parse([words, "number"])) as scorer:
        scores = scorer.grade(
            [[{"role": "user", "content": "q"}]], [[{"role": "assistant", "content": "it is 4"}]], None, {"answer": [4]}
        )
    assert scores.components == {"words": [3.0], "number": [1.0]}


def test_an_asynchronous_function_fails_like_any_other():
    async def later(completions):
        if "bad" in completions:
            raise OSError("no such judge")
        return [1.0] * len(completions)

    with Scorer(parse([later]), on_error="zero") as scorer:
        scores = score(scorer, ROWS)
    assert scores.components == {"later": [1.0, 0.0, 1.0]}
    assert "OSError: no such judge" in scores.messages[0]


def test_a_closure_brings_what_it_closes_over():
    best = {"a": 0.25}

    def lookup(completions):
        return [best.get(c, 0.0) for c in completions]

    with Scorer(parse([lookup, lambda completions: [len(best)] * len(completions)])) as scorer:
        assert score(scorer, ["a", "b"]).components == {"lookup": [0.25, 0.0], "<lambda>": [1.0, 1.0]}


def test_a_function_of_a_module_next_to_the_user_s_script_is_found(tmp_path, monkeypatch):
    (tmp_path / "rewards_next_to_a_script.py").write_text(
        "def one(completions):\n    return [1.0] * len(completions)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from rewards_next_to_a_script import one

    with Scorer(parse([one])) as scorer:
        assert score(scorer, ["a"]).components == {"one": [1.0]}


def test_the_state_of_a_reward_file_lives_from_call_to_call(tmp_path):
    file = tmp_path / "counts.py"
    file.write_text("CALLS = []\n\n\ndef count(completions):\n    CALLS.append(1)\n    return [len(CALLS)]\n")
    with Scorer(parse([f"{file}:count"])) as scorer:
        assert [score(scorer, ["a"]).components["count"] for _ in range(3)] == [[1.0], [2.0], [3.0]]


# what is lent, logged and said ----------------------------------------------------------------------------------------


def test_one_that_hangs_among_those_that_wait_leaves_the_others_their_values():
    async def hangs(completions):
        import asyncio

        await asyncio.sleep(600)

    async def fine(completions):
        return [1.0] * len(completions)

    with Scorer(parse([hangs, fine]), timeout=SHORT, on_error="skip") as scorer:
        scores = score(scorer, ["a"])
    assert scores.components == {"hangs": [None], "fine": [1.0]}
    assert "no answer within" in scores.messages[0]


def test_rows_that_all_hang_are_given_up_after_some():
    def hangs(completions):

        time.sleep(600)

    with Scorer(parse([hangs]), timeout=0.2, on_error="zero") as scorer:
        scores = score(scorer, [str(i) for i in range(50)])
    assert scores.failed == set(range(50))
    assert "no answer within 0.2 s" in scores.messages[0]
    assert "not tried: 3 rows took too long" in scores.messages[-1]


def test_arguments_that_nobody_gives_are_refused_with_those_that_are():
    def asks(completions, hardness, trainer_state, log_extra, log_metric):
        return [0.0]

    with Scorer(parse([asks, "number"])) as scorer:
        scorer.check_arguments(["prompt", "hardness"])
        with pytest.raises(UsageError) as error:
            scorer.check_arguments(["prompt", "completion", "answer"])
    assert "reward 'asks' asks for 'hardness', which is not available" in str(error.value)
    assert "prompts, completions, completion_ids, answer, trainer_state, log_extra, log_metric" in str(error.value)


def test_messages_name_the_row_of_the_data():
    with Scorer(parse([failing("exception")]), on_error="zero") as scorer:
        scores = scorer.grade(["p", "q"], ["good", "bad"], None, {}, where=["a.jsonl, row 7", "a.jsonl, row 9"])
    assert scores.messages[0].startswith("reward 'reward' failed on a.jsonl, row 9 (")


def test_columns_of_every_kind_arrive():
    rows = {
        "date": [datetime.date(2020, 1, 2)],
        "decimal": [Decimal("0.1")],
        "image": [Image.new("RGB", (2, 3))],
        "bytes": [b"\x00"],
        "nested": [{"a": [None, {"b": 1}]}],
        "rule": [lambda text: text == "a"],
        "array": [np.zeros(3)],
    }

    def looks(completions, date, decimal, image, bytes, nested, rule, array):
        right = date[0].year == 2020 and str(decimal[0]) == "0.1" and image[0].size == (2, 3) and bytes == [b"\x00"]
        return [float(right and nested[0]["a"][1]["b"] == 1 and rule[0](completions[0]) and array[0].sum() == 0)]

    with Scorer(parse([looks])) as scorer:
        assert score(scorer, ["a"], **rows).components == {"looks": [1.0]}


def test_a_column_that_cannot_be_sent_is_named_where_somebody_reads_it():
    columns = {"stream": ["fine", (x for x in "ab")]}
    with Scorer(parse([lambda completions: [1.0] * len(completions)])) as scorer:
        assert score(scorer, ["a", "b"], **columns).components == {"<lambda>": [1.0, 1.0]}
    refused = pytest.raises(UsageError, match="the column 'stream', row 2 holds generator, which cannot be sent")
    with Scorer(parse([lambda completions, **columns: [1.0] * len(completions)])) as scorer, refused:
        score(scorer, ["a", "b"], **columns)


def test_rewards_here_collect_what_they_see_and_hold_what_they_want(capsys):
    seen, lock = [], threading.Lock()

    def collects(completions, stream):
        print("printed")
        with lock:
            seen.extend(completions)
        return [1.0] * len(completions)

    async def later(completions):
        return [2.0] * len(completions)

    def leaves(completions):
        raise SystemExit(1)

    columns = {"stream": [(x for x in "ab")]}
    with Scorer(parse([(0.5, collects), later]), process="here") as scorer:
        assert score(scorer, ["a"], **columns).components == {"collects": [1.0], "later": [2.0]}
    assert seen == ["a"]
    assert capsys.readouterr() == ("", "printed\n")
    with Scorer(parse([leaves]), process="here", on_error="zero") as scorer:
        assert score(scorer, ["a"]).components == {"leaves": [0.0]}


def test_it_is_said_once_that_a_function_collects_elsewhere():
    seen = []

    def collects(completions):
        seen.extend(completions)
        return [1.0] * len(completions)

    with Scorer(parse([collects])) as scorer:
        (message,) = score(scorer, ["a"]).messages
        assert score(scorer, ["a"]).messages == []
    assert "reward 'collects': it changes 'seen', but in a process of its own" in message
    assert "reward_process = here" in message
    assert seen == []


def test_what_is_logged_row_by_row_is_put_together():
    def logs(completions, log_extra, log_metric):
        log_extra("upper", [c.upper() for c in completions])
        log_metric("rows", len(completions))
        if "bad" in completions:
            raise ValueError("bad")
        return [1.0] * len(completions)

    with Scorer(parse([logs]), on_error="zero") as scorer:
        scores = score(scorer, ["good", "bad"])
        assert (scores.extra, scores.metrics) == ({"upper": ["GOOD", None]}, {"rows": [1.0]})
        scores = score(scorer, ["good", "fine"])
        assert (scores.extra, scores.metrics) == ({"upper": ["GOOD", "FINE"]}, {"rows": [2.0]})


def test_rewards_that_ask_models_are_called_in_this_process_beside_those_of_the_worker(monkeypatch):
    def pid(completions):
        return [float(os.getpid()) for _ in completions]

    monkeypatch.setitem(KINDS, "asking", Kind("asking", ("asking",), lambda _: pid, place="run"))
    with Scorer(parse(["length:4", "asking", "format:a"])) as scorer:
        found = scorer.grade(["p"], ["a b"], None, {}).components
    assert found == {"length": [0.5], "asking": [float(os.getpid())], "format": [1.0]}
