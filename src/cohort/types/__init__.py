"""What every part of cohort speaks: rollouts of segments, batches of tensors, and what axis functions declare and are lent."""

from cohort.types.batch import Batch, Groups, MissingField, generation_budget
from cohort.types.rollout import Message, Processor, Prompt, Request, Rollout, Segment, Status, Turn, Writer, head

__all__ = [
    "Batch",
    "Groups",
    "Message",
    "MissingField",
    "Processor",
    "Prompt",
    "Request",
    "Rollout",
    "Segment",
    "Status",
    "Turn",
    "Writer",
    "generation_budget",
    "head",
]
