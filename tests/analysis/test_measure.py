"""What is measured of a run, against the same worked out otherwise."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cohort.analysis.measure import (
    HELD_OUT,
    MEASURES,
    about,
    auroc,
    calibration_error,
    diversity,
    evaluated_as,
    evaluation_path,
    mean_of,
    measures_of,
    read_evaluation,
    reliability,
    write_evaluation,
)
from cohort.errors import UsageError
from tests.analysis.comparisons import graded
from tests.helpers import rollout_of

ONE = np.ones((1, 3))


@given(
    arrays.arrays(float, (3, 4), elements=st.sampled_from([-2.0, -1.0, -0.5, 0.0])),
    arrays.arrays(bool, (3, 4)),
    arrays.arrays(float, (1, 3), elements=st.integers(0, 3).map(float)),
)
def test_the_area_under_the_curve_is_the_share_of_pairs_in_order(
    score: np.ndarray, correct: np.ndarray, weights: np.ndarray
) -> None:
    # A problem that counts twice stands there twice.
    rows = [p for p in range(3) for _ in range(int(weights[0, p]))]
    s, c = score[rows].ravel(), correct[rows].ravel()
    pairs = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(s[c], s[~c])]
    (found,) = auroc(score, correct)(weights)
    assert found == pytest.approx(np.mean(pairs)) if pairs else math.isnan(found)


@given(
    arrays.arrays(float, (3, 4), elements=st.floats(0, 1)),
    arrays.arrays(bool, (3, 4)),
    arrays.arrays(float, (1, 3), elements=st.integers(0, 3).map(float)),
)
def test_the_calibration_error_is_the_mean_gap_of_bins(
    sure: np.ndarray, correct: np.ndarray, weights: np.ndarray
) -> None:
    rows = [p for p in range(3) for _ in range(int(weights[0, p]))]
    s, c = sure[rows].ravel(), correct[rows].ravel()
    bins = np.minimum((s * 10).astype(int), 9)
    gap = sum(abs(s[bins == b].mean() - c[bins == b].mean()) * (bins == b).sum() for b in set(bins.tolist()))
    (found,) = calibration_error(sure, correct)(weights)
    assert found == pytest.approx(gap / len(s), abs=1e-9) if len(s) else math.isnan(found)


def test_a_model_that_knows_what_it_knows_is_calibrated() -> None:
    rng = np.random.default_rng(0)
    sure = rng.random((400, 16))
    correct = rng.random((400, 16)) < sure
    (error,) = calibration_error(sure, correct)(np.ones((1, 400)))
    assert error < 0.02
    (worse,) = calibration_error(np.sqrt(sure), correct)(np.ones((1, 400)))
    assert worse > 0.1


def test_means_leave_out_problems_without_a_value() -> None:
    measure = mean_of(np.array([1.0, math.nan, 4.0]))
    found = measure(np.array([[1.0, 1.0, 1.0], [3.0, 5.0, 0.0], [0.0, 2.0, 0.0]]))
    assert found[:2].tolist() == [2.5, 1.0]
    assert math.isnan(found[2])


def test_an_evaluation_is_stored_and_measured_from_its_file(tmp_path: Path) -> None:
    rollouts = graded([0.0, 0.5, 1.0], samples=8)
    write_evaluation(tmp_path, HELD_OUT, rollouts, 8, {"data": "test.jsonl"})
    assert evaluated_as(tmp_path, HELD_OUT) == {"data": "test.jsonl", "samples": 8}
    samples = read_evaluation(tmp_path, HELD_OUT)
    assert samples.ids == ["problem0", "problem1", "problem2"]
    right = np.array([r.accuracy for r in rollouts]).reshape(3, 8)
    assert (samples.correct == (right > 0)).all()
    assert samples.logp[1, 2] == pytest.approx(sum(rollouts[10].sampler_logp))
    assert samples.truncated[:, 0].all()
    measures = {name: float(measure(ONE)[0]) for name, measure in measures_of(samples).items()}
    assert measures["pass@1"] == pytest.approx(right.mean())
    assert measures["pass@8"] == pytest.approx((right.sum(1) > 0).mean())
    wrong = 8 - right.sum(1)
    assert measures["pass@2"] == pytest.approx(np.mean(1 - wrong * (wrong - 1) / 56))
    assert measures["maj@8"] in (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert measures["truncated"] == pytest.approx(1 / 8)
    assert measures["length"] == 4.0
    assert measures["auroc"] > 0.6
    assert {*measures} <= {*MEASURES, *(f"pass@{k}" for k in range(1, 9)), "maj@2", "maj@4", "maj@8"}
    assert sum(count for *_, count in reliability(samples)) == 24
    assert all(about(name).title for name in measures)
    # Problems taken in another order are the same problems.
    (again,) = measures_of(samples.of(samples.ids[::-1]))["auroc"](ONE)
    assert again == pytest.approx(measures["auroc"])


def test_diversity_is_between_completions_that_are_right(tmp_path: Path) -> None:
    rollouts = [
        r.replace(segments=rollout_of(r.request, t).segments, accuracy=a)
        for r, t, a in zip(
            graded([1.0, 1.0], samples=3),
            [[3, 4, 5, 6], [3, 4, 5, 6], [9, 9, 9, 9], [3, 4, 5, 6], [3, 4, 7, 8], [3, 4, 5, 6]],
            [1.0, 1.0, 0.0, 1.0, 1.0, 0.0],
            strict=True,
        )
    ]
    write_evaluation(tmp_path, "other", rollouts, 3, {})
    # The same twice; then one pair of tokens of five in common.
    assert diversity(read_evaluation(tmp_path, "other")).tolist() == pytest.approx([0.0, 0.8])


def test_a_cut_or_foreign_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read as an evaluation"):
        read_evaluation(tmp_path, HELD_OUT)
    write_evaluation(tmp_path, HELD_OUT, graded([0.5]), 8, {})
    path = evaluation_path(tmp_path, HELD_OUT)
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 5), path)
    with pytest.raises(UsageError, match="5 rows are not 8 of each problem"):
        read_evaluation(tmp_path, HELD_OUT)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UsageError, match=str(path)):
        read_evaluation(tmp_path, HELD_OUT)
    assert evaluated_as(tmp_path, HELD_OUT) is None
