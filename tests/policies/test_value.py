"""A value model: what a completion that begins like this is worth."""

from __future__ import annotations

from pathlib import Path

import pytest

from cohort.errors import UsageError
from cohort.policies.value import ValueModel
from tests.helpers import tiny_policy


def test_it_learns_what_sequences_are_worth_and_comes_back_from_its_file(tmp_path: Path) -> None:
    value, reported = ValueModel(tiny_policy()), dict[int, float]()
    sequences = [[3, a, b] for a in range(5, 15) for b in range(5, 15)]
    worth = [float(b % 2) for _, _, b in sequences]
    assert value.values(sequences) == [0.0] * 100
    value.fit(sequences, worth, lr=3e-3, epochs=6, report=reported.__setitem__)
    assert list(reported) == [1, 2, 3, 4, 5, 6]
    assert reported[6] < 0.3 * reported[1]
    said = value.values(sequences)
    assert max(s for s, w in zip(said, worth, strict=True) if w == 0) < min(
        s for s, w in zip(said, worth, strict=True) if w == 1
    )
    # Longer ones beside it change nothing.
    assert value.values([[3, 5], *sequences[:3]])[1:] == pytest.approx(said[:3], abs=1e-5)
    value.save(tmp_path / "value.pt")
    again = ValueModel(tiny_policy(seed=1))
    again.load(tmp_path / "value.pt")
    assert again.values(sequences) == said


def test_a_file_that_is_none_or_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--value-data DATA trains one"):
        ValueModel(tiny_policy()).load(tmp_path / "missing.pt")
    ValueModel(tiny_policy("gpt2")).save(tmp_path / "other.pt")
    with pytest.raises(UsageError, match="no value model of this model"):
        ValueModel(tiny_policy()).load(tmp_path / "other.pt")
