"""The types that every part of cohort uses: rollouts of segments, batches of tensors, declarations of axis functions."""

from cohort.types.batch import Batch, Groups, MissingField
from cohort.types.context import Context
from cohort.types.rollout import (
    Group,
    Message,
    Processor,
    Prompt,
    Request,
    Rollout,
    Segment,
    Status,
    Turn,
    Writer,
    grouped,
    head,
)
from cohort.types.step import StepInfo, generation_budget

__all__ = [
    "Batch",
    "Context",
    "Group",
    "Groups",
    "Message",
    "MissingField",
    "Processor",
    "Prompt",
    "Request",
    "Rollout",
    "Segment",
    "Status",
    "StepInfo",
    "Turn",
    "Writer",
    "generation_budget",
    "grouped",
    "head",
]
