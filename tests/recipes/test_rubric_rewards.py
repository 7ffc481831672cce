import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.rewards.judges import server as server_module
from cohort.signals.exploitation import kept_best, unmeasured
from cohort.signals.rubrics import exploited, share_met
from cohort.training.config import make_config
from cohort.training.run import train
from tests import micro
from tests.rewards.judges.serving import Serving, serve

RUBRIC = st.lists(st.tuples(st.floats(-5, 5).filter(bool), st.integers(0, 1)), min_size=1, max_size=6)
BITS = st.lists(st.integers(0, 1), min_size=3, max_size=3)


@given(RUBRIC)
def test_the_share_is_within_0_and_1_and_a_weight_may_change_sign_with_its_mark(rubric) -> None:
    weights, met = zip(*rubric, strict=True)
    share = share_met(weights, met)
    assert -1e-12 <= share <= 1 + 1e-12
    turned = share_met([-weights[0], *weights[1:]], [1 - met[0], *met[1:]])
    assert math.isclose(share, turned, abs_tol=1e-12)
    assert math.isclose(share_met([1.0] * len(met), met), sum(met) / len(met))


@given(BITS, BITS, st.lists(BITS, min_size=1, max_size=3))
def test_what_the_panel_accepts_is_not_exploited_and_what_it_rejects_is(before, now, panel) -> None:
    weights = [1.0, 2.0, 3.0]
    rejected, whole = exploited(weights, before, now, panel)
    assert 0 <= rejected <= whole
    assert exploited(weights, before, now, [[1, 1, 1]])[0] == 0
    assert exploited(weights, before, now, [[0, 0, 0]])[0] == whole


def test_the_earliest_of_equal_gaps_is_kept() -> None:
    state = unmeasured()
    for step, gap in enumerate([-0.5, -0.2, -0.2, -0.3]):
        state = kept_best(state, gap, step)
    assert (state["gap"], state["gap_best"], state["gap_best_step"]) == (-0.3, -0.2, 1)


def test_a_run_measures_the_gap_and_what_a_panel_rejects(tmp_path, micro_root, monkeypatch) -> None:
    """The verifier credits everything, and the panel nothing after the first look."""
    monkeypatch.setenv("COHORT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(server_module, "PAUSE", 0.02)
    seen: set[str] = set()

    def verifier(messages):
        question = messages[-1]["content"].split("Question:")[1][:10]
        first = question not in seen
        seen.add(question)
        return "1: no\n2: yes" if first else "1: yes\n2: yes"

    with serve(Serving(answer=verifier)) as weak, serve(Serving(answer=lambda messages: "1: no\n2: no")) as strong:
        config = make_config(
            {
                **micro.CONFIG,
                "model": str(micro.folder(micro_root)),
                "method": "rubric-rewards(panel=('one',),gap_every=2,gap_samples=2)",
                "data": micro.ROWS[:2],
                "reward": [f"judge:rubric@{weak.url}", f"0*one=judge:rubric@{strong.url}"],
                "steps": 3,
                "prompts_per_step": 2,
                "group_size": 2,
                "device": "cpu",
                "judge_cache": False,
                "judge_concurrency": 1,
                "out": str(tmp_path / "run"),
            }
        )
        metrics = train(config).metrics
    assert [math.isnan(m["rubric/gap"]) for m in map(known, metrics)] == [False, True, False]
    assert metrics[0]["rubric/gap"] == pytest.approx(metrics[0]["rubric/gap_best"])
    assert known(metrics[0])["rubric/exploitation"] != known(metrics[0])["rubric/exploitation"]
    assert metrics[1]["rubric/exploitation"] == 1.0
    assert metrics[1]["rubric/proxy"] == 1.0
    assert metrics[1]["rubric/reference"] == 0.0
    assert metrics[-1]["reward/rubric"] == 1.0


def known(metrics):
    return {name: math.nan if value is None else value for name, value in metrics.items()}
