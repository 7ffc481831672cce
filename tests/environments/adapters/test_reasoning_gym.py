"""The tasks of reasoning-gym as environments."""

from __future__ import annotations

import pytest

from cohort.environments.adapters.reasoning_gym import ids, load
from cohort.errors import UsageError
from tests.environments.adapters import say


def test_the_verifier_rewards_the_answer() -> None:
    maker = load("chain_sum", {"size": 3, "max_terms": 2, "max_digits": 1})
    rows = maker.rows(False)
    assert len(rows) == 3
    for answer, reward in ((rows[1]["answer"], 1.0), ("no idea", 0.0)):
        question = maker.make()
        assert question.reset(rows[1], 0) == rows[1]["prompt"]
        step = question.step(say(f"It is {answer}"))
        assert (step.reward, step.done) == (reward, True)
    assert maker.turns == 1


def test_rows_held_out_are_others() -> None:
    maker = load("chain_sum", {"size": 20})
    trained = {row["prompt"] for row in maker.rows(False)}
    assert len(trained - {row["prompt"] for row in maker.rows(True)}) > 15


def test_partial_credit_counts_where_asked() -> None:
    partial, whole = (load("chain_sum", {"size": 1, "partial": partial}) for partial in (True, False))
    row = whole.rows(False)[0]
    near = f"\\boxed{{{row['answer']} or 7}}"
    values = []
    for maker in (partial, whole):
        question = maker.make()
        question.reset(row, 0)
        values.append(question.step(say(near)).reward)
    assert 0.0 < values[0] < 1.0
    assert values[1] == 0.0


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(UsageError, match="did you mean chain_sum"):
        load("chain_sun", {})
    with pytest.raises(UsageError, match="colour"):
        load("chain_sum", {"colour": 1})
    with pytest.raises(UsageError, match="no column 'question'"):
        load("chain_sum", {}).make().reset({"prompt": "1 + 1"}, 0)
    assert "chain_sum" in ids()
