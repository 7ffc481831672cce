"""The batch: what it promises to those who read it."""

from __future__ import annotations

import pytest
import torch

from cohort.types import Batch, MissingField


def make(mask: list[list[int]], **fields: torch.Tensor) -> Batch:
    return Batch.of(torch.tensor(mask), **fields)


def test_masked_positions_read_as_zero_and_pass_no_gradient() -> None:
    logp = torch.tensor([[float("nan"), -1.0], [float("inf"), 5.0]], requires_grad=True)
    batch = make([[0, 1], [0, 0]], logp=logp)
    assert batch.logp.tolist() == [[0.0, -1.0], [0.0, 0.0]]
    batch.logp.exp().sum().backward()
    assert logp.grad is not None
    assert torch.allclose(logp.grad, torch.tensor([[0.0, torch.e**-1], [0.0, 0.0]]))


def test_half_precision_reads_as_float32() -> None:
    batch = make(
        [[1]], logp=torch.tensor([[-1.0]], dtype=torch.bfloat16), rewards=torch.tensor([1.0], dtype=torch.float16)
    )
    assert batch.logp.dtype == batch.rewards.dtype == batch.dtype == torch.float32


def test_groups_follow_the_first_appearance_of_their_label() -> None:
    batch = make([[1]] * 5, group=torch.tensor([7, 3, 7, 9, 3]))
    assert batch.groups.index.tolist() == [0, 1, 0, 2, 1]
    assert batch.groups.labels.tolist() == [7, 3, 9]
    assert batch.groups.count == 3


def test_a_batch_is_never_changed_in_place() -> None:
    batch = make([[1, 1]], logp=torch.zeros(1, 2), rewards=torch.zeros(1))
    other = batch.replace(rewards=torch.ones(1)).with_tokens(extra=torch.ones(1, 2))
    assert batch.rewards.tolist() == [0.0]
    assert "extra" not in batch
    assert other["extra"].sum() == 2


def test_select_takes_rows_of_every_field() -> None:
    batch = make([[1, 0], [1, 1]], logp=torch.tensor([[1.0, 2.0], [3.0, 4.0]]), group=torch.tensor([5, 6]))
    for rows in (torch.tensor([1]), torch.tensor([False, True])):
        part = batch.select(rows)
        assert part.logp.tolist() == [[3.0, 4.0]]
        assert part.group.tolist() == [6]
        assert part.mask.tolist() == [[True, True]]


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="must be"):
        Batch(mask=torch.ones(3))
    with pytest.raises(ValueError, match="token field 'logp'"):
        make([[1, 1]], logp=torch.zeros(1, 3))
    with pytest.raises(ValueError, match="rollout field 'rewards'"):
        make([[1, 1]], rewards=torch.zeros(2))
    with pytest.raises(ValueError, match="no core field"):
        make([[1]]).replace(strange=torch.zeros(1))
    with pytest.raises(ValueError, match="no core fields"):
        make([[1]], strange=torch.zeros(1))


def test_a_missing_field_says_how_to_get_it() -> None:
    with pytest.raises(MissingField, match=r"@needs\('ref_logp'\)"):
        _ = make([[1]], logp=torch.zeros(1, 1)).ref_logp


def test_lengths_count_tokens_unless_given() -> None:
    assert make([[1, 0, 1], [0, 0, 0]]).lengths.tolist() == [2, 0]
    assert make([[1, 1]]).with_rollouts(length=torch.tensor([9])).lengths.tolist() == [9]
