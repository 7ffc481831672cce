"""Rows of several tasks in one data set."""

from __future__ import annotations

from typing import Any

import torch

from cohort.errors import UsageError
from cohort.types import Batch
from cohort.types.access import ModelAccess


def task_numbers(batch: Batch, access: ModelAccess, *, column: str, tasks: tuple[Any, ...]) -> Batch:
    """The place in `tasks` of what the data's column holds, as the field `task` [N] int64: an on_scored hook.

    Raises:
        UsageError: a row is of none of the tasks.
    """
    if "task" in batch:
        return batch
    numbers = []
    for name in access.column(column):
        if name not in tasks:
            raise UsageError(
                f"the column '{column}' holds the task {name!r}, but the method knows {', '.join(map(repr, tasks))}: name "
                "all tasks of the data in the method, as tasks=(...)"
            )
        numbers.append(tasks.index(name))
    return batch.with_rollouts(task=torch.tensor(numbers, dtype=torch.int64, device=batch.device))
