import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from cohort import registry
from cohort.signals.consistency import consistency, unwatched, watched
from tests.golden.adapters.mcot_consistency import judged
from tests.helpers import info_of, random_batch

RACS = st.lists(st.floats(0, 1) | st.just(math.nan), max_size=30)
HOW = {"ema_alpha": 0.3, "patience": 2, "drop": 0.05}


def followed(racs, **how):
    state, alarms = unwatched(), []
    for rac in racs:
        state = watched(state, rac, **{**HOW, **how})
        alarms.append(state["alarm"])
    return state, alarms


@given(RACS)
def test_a_series_that_never_falls_raises_no_alarm(racs) -> None:
    assert not any(followed(sorted(r for r in racs if not math.isnan(r)))[1])


@given(RACS, st.integers(0, 30))
def test_a_step_without_a_verdict_changes_nothing_but_the_count_of_steps(racs, at) -> None:
    state, alarms = followed(racs)
    other, more = followed([*racs[:at], math.nan, *racs[at:]])
    same = ("ema", "best", "alarm", "count")
    assert all(state[k] == other[k] or math.isnan(state[k]) for k in same)
    assert sum(more) - sum(alarms) in (0, 1)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 1.0, math.nan])), min_size=1, max_size=20))
def test_the_shares_add_up(rollouts) -> None:
    correct, verdict = (torch.tensor(each, dtype=torch.float64) for each in zip(*rollouts, strict=True))
    found = consistency(correct, verdict)
    rac = found.pop("rac")
    if verdict.isnan().all():
        assert all(map(math.isnan, found.values()))
    else:
        assert math.isclose(sum(found.values()), 1.0)
        assert math.isclose(found["correct_consistent"] + found["wrong_consistent"], rac, abs_tol=1e-12)


def test_a_wrong_answer_is_worth_nothing_and_weight_0_is_the_accuracy() -> None:
    made = random_batch()
    verdict = [1.0, 0.0, None] * made.size
    made = judged(made, verdict[: made.size])
    for weight in (0.0, 0.5):
        method = registry.method("mcot-consistency", weight=weight)
        bound = method.bind(method.init(size=made.size, steps=1), info=info_of(made, "consistent"))
        bound = bound.with_states(bound.on_rollouts(made, [None] * made.size))
        rewards = bound.shape(made).rewards
        assert (rewards[made["accuracy"] == 0] == 0).all()
        if weight == 0:
            assert torch.equal(rewards, made["accuracy"].to(rewards))
