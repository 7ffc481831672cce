"""What ranks cannot do together is refused before they meet."""

from __future__ import annotations

import pytest

from cohort.distributed.run import check_ranks
from cohort.errors import UsageError
from cohort.training.config import TrainConfig
from cohort.training.sections import MachineConfig


def test_layers_that_ranks_compute_together_are_not_compiled() -> None:
    check_ranks(TrainConfig(machine=MachineConfig(compile=True)))
    check_ranks(TrainConfig(machine=MachineConfig(compile="auto", tensor_parallel=2)))
    with pytest.raises(UsageError, match="compile makes layers that one process computes as a whole"):
        check_ranks(TrainConfig(machine=MachineConfig(compile=True, tensor_parallel=2)))
