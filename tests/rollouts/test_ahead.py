"""Sampling ahead of training: what is drawn with which weights, what waits, and how it ends."""

from __future__ import annotations

import io
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.engine.detached import GivenUp
from cohort.rollouts.ahead import handed_out, laid_over
from cohort.rollouts.journal import Journal
from tests.rollouts.drawing import PROMPTS, info, trainer_of


@given(st.integers(0, 4), st.integers(1, 3), st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_no_token_is_older_than_k_steps_whoever_is_slower(most: int, updates: int, seed: int) -> None:
    rng = random.Random(seed)
    times = [rng.choice([0.0, 0.0, 0.003]) for _ in range(20)]
    how: dict[str, Any] = {"takes": lambda step: times[step], "trains": lambda step: times[-step]}
    trainer, source, drawer = trainer_of(most, 12, updates=updates, **how)
    try:
        for _ in range(12):
            trainer.one()
    finally:
        source.close()
    # Step t with the weights after step max(0, t - 1 - k), each once, in order; and their version and numbers with them.
    after = [max(0, step - 1 - most) for step in range(1, 13)]
    assert drawer.drawn == [(step, updates * at, float(at)) for step, at in enumerate(after, 1)]
    for step, drawn in enumerate(trainer.results, 1):
        age = step - 1 - after[step - 1]
        assert drawn.metrics["rollouts/age_max"] == drawn.metrics["rollouts/age_mean"] == age <= most
        assert sum(drawn.metrics[f"rollouts/age/{k}"] for k in range(most + 1)) == 1.0
        assert drawn.metrics[f"rollouts/age/{age}"] == 1.0
        assert [rollout.request.seed for rollout in drawn.rollouts] == [step] * 4


def test_states_are_as_old_as_the_weights_but_for_what_drawing_hands_out() -> None:
    trainer, source, _ = trainer_of(2, 8)
    seen = []
    use = source.drawer.use
    source.drawer.use = lambda ready, version: (seen.append(ready.aside["seen"]), use(ready, version))[1]  # type: ignore[method-assign]
    for step in range(1, 9):
        drawn = trainer.one()
        # Four prompts a step, none twice; and at its use the step has the newest of what was learnt.
        assert drawn.states["curriculum"] == {"place": 4 * step, "seen": step - 1}
    source.close()
    assert seen == [0, 0, 0, 1, 2, 3, 4, 5]


def test_what_drawing_changes_is_told_from_what_it_leaves() -> None:
    tensor = torch.arange(3)
    before = {"a": {"order": tensor, "place": 3, "learnt": 1.0}, "b": {"x": 1}}
    after = {"a": {"order": tensor, "place": 5, "learnt": 1.0, "new": "it"}, "b": {"x": 1}}
    assert handed_out(before, after) == {"a": {"place": 5, "new": "it"}}
    # The same number as another type is another value.
    assert handed_out({"a": {"x": 1}}, {"a": {"x": True}}) == {"a": {"x": True}}
    later = {"a": {"order": tensor, "place": 3, "learnt": 2.0}, "b": {"x": 2}}
    laid = laid_over(later, {"a": {"place": 5, "new": "it"}})
    assert laid == {"a": {"order": tensor, "place": 5, "learnt": 2.0, "new": "it"}, "b": {"x": 2}}


def test_the_sampler_waits_for_the_trainer_and_the_trainer_for_the_sampler() -> None:
    def waited(**how: Any) -> tuple[float, float, list[float]]:
        trainer, source, _ = trainer_of(1, 6, **how)
        steps = [trainer.one().metrics for _ in range(6)]
        source.close()
        times = [sum(each[f"time/wait_{who}"] for each in steps[2:]) for who in ("rollouts", "trainer")]
        assert source.waited == pytest.approx(sum(each["time/wait_rollouts"] for each in steps))
        return times[0], times[1], [each["queue/depth"] for each in steps]

    for_rollouts, for_trainer, depth = waited(trains=lambda step: 0.05)
    assert for_trainer > 4 * 0.04 > 2 * for_rollouts
    assert depth == [0.0, 4.0, 4.0, 4.0, 4.0, 4.0]
    for_rollouts, for_trainer, depth = waited(takes=lambda step: 0.05)
    assert for_rollouts > 4 * 0.04 > 2 * for_trainer
    assert depth == [0.0] * 6


def test_an_error_comes_at_the_step_that_it_leaves_without_rollouts() -> None:
    error = ValueError("no more")
    trainer, source, drawer = trainer_of(2, fails={4: error})
    for _ in range(3):
        trainer.one()
    # A little later than the thread's end, and again if it is asked again.
    for _ in range(2):
        with pytest.raises(ValueError, match="no more") as raised:
            trainer.one()
        assert raised.value is error
    source.close()
    assert [step for step, *_ in drawer.drawn] == [1, 2, 3]


def test_a_thread_that_is_gone_is_said_rather_than_waited_for() -> None:
    trainer, source, _ = trainer_of(1, fails={2: GivenUp()})
    trainer.one()
    with pytest.raises(RuntimeError, match="has ended without those of step 2"):
        trainer.one()
    source.close()


def test_closing_gives_up_what_is_drawn_and_leaves_no_thread() -> None:
    trainer, source, drawer = trainer_of(1)
    drawer.takes = lambda step: drawer.stopped.wait(30) and 0.0 if step == 2 else 0.0
    trainer.one()
    before = time.monotonic()
    source.close()
    assert time.monotonic() - before < 4
    assert not any(thread.name == "rollouts" for thread in threading.enumerate())
    source.close()


def test_nothing_is_drawn_for_steps_that_the_run_does_not_make() -> None:
    trainer, source, drawer = trainer_of(3, 5)
    for _ in range(5):
        trainer.one()
    source.close()
    assert [step for step, *_ in drawer.drawn] == [1, 2, 3, 4, 5]


# checkpoints ----------------------------------------------------------------------------------------------------------


def stored(state: dict[str, Any]) -> dict[str, Any]:
    """As it comes back from a file."""
    held = io.BytesIO()
    torch.save(state, held)
    held.seek(0)
    loaded: dict[str, Any] = torch.load(held, weights_only=True)
    return loaded


@given(st.integers(1, 3), st.integers(1, 9), st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_a_resumed_run_draws_what_it_would_have_drawn_and_nothing_twice(most: int, at: int, seed: int) -> None:
    rng = random.Random(seed)
    times = [rng.choice([0.0, 0.004]) for _ in range(30)]
    first, source, drawer = trainer_of(most, 12, takes=lambda step: times[step], trains=lambda step: times[-step])
    for _ in range(at):
        first.one()
    state = stored(source.state_dict())
    source.close()
    again, resumed, further = trainer_of(most, 12)
    again.step, again.states, further.now = first.step, first.states, float(first.step)
    resumed.load_state_dict(state)
    for _ in range(12 - at):
        again.one()
    resumed.close()
    whole, untouched, all_of_it = trainer_of(most, 12)
    for _ in range(12):
        whole.one()
    untouched.close()
    held = [step for step, _ in state["ready"]]
    assert [*drawer.drawn[: at + len(held)], *further.drawn] == all_of_it.drawn
    assert again.states == whole.states
    assert resumed.drawer.source.state_dict() == {"drawn": 12}
    assert [drawn.chosen for drawn in [*first.results, *again.results]] == [drawn.chosen for drawn in whole.results]
    for mine, theirs in zip([*first.results, *again.results], whole.results, strict=True):
        ages = [{k: v for k, v in each.metrics.items() if k.startswith("rollouts/")} for each in (mine, theirs)]
        assert ages[0] == ages[1]


def test_a_step_that_is_undone_gets_its_rollouts_again() -> None:
    trainer, source, drawer = trainer_of(1)
    trainer.one()
    held = source.snapshot()
    states = trainer.states
    first = trainer.one()
    source.restore(held)
    assert source.state_dict()["ready"][0][0] == 2
    trainer.step, trainer.states = 1, states
    again = trainer.one()
    assert again.rollouts == first.rollouts
    assert [step for step, *_ in drawer.drawn].count(2) == 1
    trainer.one()
    source.close()


def test_what_is_journalled_after_a_checkpoint_is_not_drawn_again(tmp_path: Path) -> None:
    first, source, drawer = trainer_of(1, 12, Journal(tmp_path / "ahead"))
    for _ in range(3):
        first.one()
    state, step, states = stored(source.state_dict()), first.step, first.states
    for _ in range(4):
        first.one()
    drawer.stopped.set()
    source.close()  # as a kill leaves it: nothing is tidied up before the run's end
    last = max(step for step, *_ in drawer.drawn)
    again, resumed, further = trainer_of(1, 12, Journal(tmp_path / "ahead"))
    again.step, again.states, further.now = step, states, float(step)
    resumed.load_state_dict(state)
    for _ in range(12 - step):
        again.one()
    assert again.results[3].rollouts == first.results[6].rollouts
    assert [each for each, *_ in further.drawn] == [*range(last + 1, 13)]
    assert (tmp_path / "ahead").exists()
    resumed.close()
    assert not (tmp_path / "ahead").exists()


def test_without_a_state_the_journal_is_of_another_run(tmp_path: Path) -> None:
    first, source, _ = trainer_of(1, 12, Journal(tmp_path / "ahead"))
    for _ in range(3):
        first.one()
    source.close()
    again, resumed, further = trainer_of(1, 12, Journal(tmp_path / "ahead"))
    resumed.load_state_dict({})
    again.one()
    resumed.close()
    assert further.drawn[0] == (1, 0, 0.0)


def test_the_journal_does_not_grow_with_the_run(tmp_path: Path) -> None:
    trainer, source, _ = trainer_of(2, 40, Journal(tmp_path / "ahead"))
    sizes = []
    for step in range(1, 31):
        trainer.one()
        if step % 3 == 0:
            source.state_dict()
            sizes.append(sum(path.stat().st_size for path in (tmp_path / "ahead").iterdir()))
    source.close()
    assert len(list((tmp_path / "ahead").iterdir())) <= 3
    assert max(sizes[3:]) < 3 * sizes[1]
    assert len(PROMPTS) == 4
    assert info(3).step == 3
