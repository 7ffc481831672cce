"""What a builtin reward is: how it is written, what makes its function, and what it asks of the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cohort.errors import UsageError
from cohort.rewards.judges.judges import Judges

Values = list[float | None]
Function = Callable[..., Any]
# What messages call a row, and its columns.
Placed = tuple[str, Mapping[str, Any]]
COMPARED = (
    "the reward '{reward}' compares with the column 'answer', which {where} lacks (it has: {held}): name the one to use "
    "with --answer-field"
)
READ = "the reward '{reward}' reads the column '{column}', which {where} lacks (it has: {held}): add it to the data"


@dataclass(frozen=True)
class Kind:
    """A builtin reward, written NAME or NAME:ARGUMENT.

    Attributes:
        name: what stands before the first colon. It says what is judged.
        forms: how it is written, for messages and documentation, as ("length", "length:N").
        make: (argument) -> function with the calling convention of a user's; "" where there is no argument; None where
            the kind has no such form. It raises UsageError for an argument that cannot be used. What is large is imported
            here, or when the function is called.
        verifies: it says whether an answer is right.
        columns: those that every row must have.
        inapplicable: (argument, rows) -> places of rows that it does not apply to and why, as "have no answer"; several
            pairs of these. A run says them before anything is drawn.
        check: (argument, rows) -> raises UsageError, before anything is drawn, for rows or an argument that no run can
            be made of; rows come with what messages call them.
        place: where it is called: "worker", the process of the reward functions with its time limit; or "run", the
            process of the run, for what asks models and limits its own time. Its function may name the argument `judges`.
        get_ready: (argument, judges) -> raises UsageError, before data and model are loaded, where what it asks is not there.
        components: (argument) -> name and argument of each component that it stands for, where that is not one that is
            called as the kind is.
        files: (argument) -> files that it depends on: a run that is resumed with other contents of them is refused.
    """

    name: str
    forms: tuple[str, ...]
    make: Callable[[str], Function | None]
    verifies: bool = False
    columns: tuple[str, ...] = ()
    inapplicable: Callable[[str, Sequence[Mapping[str, Any]]], list[tuple[list[int], str]]] | None = None
    check: Callable[[str, Sequence[Placed]], None] | None = None
    place: Literal["worker", "run"] = "worker"
    get_ready: Callable[[str, Judges], None] | None = None
    components: Callable[[str], Mapping[str, str]] | None = None
    files: Callable[[str], Sequence[Path]] | None = None

    def check_rows(self, reward: str, argument: str, rows: Sequence[Placed]) -> None:
        """The rows are such that the reward can be given.

        Args:
            reward: its name in this run.

        Raises:
            UsageError: they are not; names a row, and what to do.
        """
        for where, row in rows:
            for column in self.columns:
                if column not in row:
                    text = COMPARED if column == "answer" else READ
                    raise UsageError(text.format(reward=reward, column=column, where=where, held=", ".join(row)))
        if self.check is not None:
            self.check(argument, rows)


def plain(name: str, functions: Mapping[str, Function], **what: Any) -> Kind:
    """A kind whose forms are a fixed function each: argument ("" for none) -> function; `what` as of Kind."""
    forms = tuple(f"{name}:{argument}" if argument else name for argument in functions)
    return Kind(name, forms, functions.get, **what)
