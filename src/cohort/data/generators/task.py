"""What a generator makes: a question about a scene, which is shown as text or as pictures, and its exact answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from PIL.Image import Image

Form = Literal["text", "picture", "both"]
LEVELS = ("easy", "medium", "hard")


@dataclass(frozen=True)
class Task:
    """A question with its answer.

    Attributes:
        rules: what holds for every scene of the kind; may be empty.
        scene: the scene as text.
        seen: what the pictures show, as a sentence that stands in place of the scene.
        question: with the options to choose from, and the form of the answer.
        answer: as text.
        columns: further columns of the row; `state` holds all that the answer follows from.
        pictures: each makes one picture when it is called (with pillow).
        several: the row's pictures stand in the column `images`, a list, rather than in `image`.
    """

    rules: str
    scene: str
    seen: str
    question: str
    answer: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    pictures: Sequence[Callable[[], Image]] = ()
    several: bool = False

    def prompt(self, form: Form) -> str:
        """The question with the scene; where there is only a picture of it, without."""
        parts = (self.rules, self.seen if form == "picture" else self.scene, self.question)
        return "\n\n".join(part for part in parts if part)

    def row(self, form: Form, names: Sequence[str] = ()) -> dict[str, Any]:
        """Columns of the row.

        Args:
            names: of the pictures' files, where there are some.
        """
        row: dict[str, Any] = {"prompt": self.prompt(form), "answer": self.answer}
        if names:
            row |= {"images": list(names)} if self.several else {"image": names[0]}
        return {**row, "scene": self.scene, **self.columns}


ANSWER = "Write the answer between <answer> and </answer>."
