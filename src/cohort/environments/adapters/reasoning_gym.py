"""`reasoning_gym:TASK`: the procedural tasks of reasoning-gym, a question and an answer each.

The rows are those of `--data reasoning_gym:TASK?...`, and the reward is that of their verifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cohort.data.load import load_rows
from cohort.environments.adapters.shared import HELD_OUT, HELD_OUT_ROWS, number
from cohort.environments.base import Step
from cohort.environments.spec import Maker
from cohort.errors import UsageError
from cohort.rewards.verifiers import partial_task

if TYPE_CHECKING:
    from cohort.types import Message

ROWS = 500


class Tasks:
    """Questions of one task.

    Args:
        name: of the task.
        options: `size` and `seed` of its rows; `partial`, whether a verifier's partial credit counts; all others are the
            task's.

    Raises:
        UsageError: there is no such task, or it has no such option.
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        self.size = number(options, "size", ROWS, whole=True, least=1)
        self.seed = number(options, "seed", 0, whole=True, least=0)
        self.partial = options.get("partial") in (True, 1)
        self.options = {key: value for key, value in options.items() if key not in ("size", "seed", "partial")}
        self._load(1, self.seed)

    def rows(self, held_out: bool) -> list[dict[str, Any]]:
        """Rows with `question`, `answer` and `metadata`; those held out come from another seed."""
        if held_out:
            return self._load(min(self.size, HELD_OUT_ROWS), HELD_OUT + self.seed)
        return self._load(self.size, self.seed)

    def _load(self, size: int, seed: int) -> list[dict[str, Any]]:
        text = "&".join(f"{key}={value}" for key, value in {**self.options, "size": size, "seed": seed}.items())
        return [dict(row) for row in load_rows(f"reasoning_gym:{self.name}?{text}")]


class Question:
    """One question."""

    def __init__(self, of: Tasks) -> None:
        self.of = of

    def reset(self, row: Mapping[str, Any], seed: int) -> Any:
        """The question.

        Raises:
            UsageError: the row is of no task of reasoning-gym.
        """
        lacking = [name for name in ("prompt", "question", "answer", "metadata") if name not in row]
        if lacking:
            raise UsageError(f"the row has no column '{lacking[0]}': it is of no task of reasoning-gym")
        self.row = row
        return row["prompt"]

    def step(self, message: Message) -> Step:
        """What the verifier gives the answer."""
        columns = {name: [self.row[name]] for name in ("question", "answer", "metadata")}
        value = partial_task([str(message.get("content") or "")], **columns)[0] or 0.0
        return Step(reward=value if self.of.partial else float(value >= 1.0), done=True)

    def close(self) -> None:
        """Does nothing: a question holds nothing."""


def load(name: str, options: Mapping[str, Any]) -> Maker:
    """The maker of its environments; see `Tasks`."""
    of = Tasks(name, options)
    return Maker(lambda: Question(of), turns=1, rows=of.rows)


def ids() -> list[str]:
    """All tasks."""
    from reasoning_gym.factory import DATASETS

    return sorted(DATASETS)
