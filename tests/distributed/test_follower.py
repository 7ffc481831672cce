"""What a rank finds out by itself before it follows."""

from __future__ import annotations

import pytest
import torch

from cohort.distributed.follower import checksum
from cohort.policies.replica import replica
from tests.helpers import tiny_policy


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_same_weights_have_the_same_checksum_wherever_they_are(dtype: torch.dtype) -> None:
    policy = tiny_policy()
    policy.model.to(dtype)
    one = checksum(policy)
    other = replica(policy)
    assert one == checksum(other)
    head = max(other.model.parameters(), key=torch.numel)
    # In another order in memory, which sums of floating-point numbers depend on.
    head.data = head.data.t().contiguous().t()
    assert one == checksum(other)
    with torch.no_grad():
        head[1, 1] = torch.nextafter(head[1, 1], torch.tensor(torch.inf, dtype=dtype))
    assert one != checksum(other)
