"""Prompts of judges: what they are shown, and the form in which they answer.

A prompt begins with lines between two `---`, and goes on with a template over the row's columns and what is judged:

    ---
    answer: score 1-10
    system: You are a strict teacher.
    ---
    Question: {prompt}
    Answer: {completion}
    How clear is the answer?

`answer` is a form (see `forms.py`), whose own request is put behind the template. `replies` asks that many times, at
`temperature`, and takes the mean. A template takes every column of the row, and:

    prompt, completion          texts of what was asked and of what is judged
    reasoning, final            of the completion: what comes before its final answer, and that answer
    first, second               the two completions of a pair
    criteria                    the criteria of the column `rubric`, numbered from 1
    steps                       the completion's steps (blank lines part them), numbered from 0
    mark                        a line that no completion can hold, to stand around what is judged
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from cohort.data.prompts import fields_of, fill
from cohort.data.rows import Row
from cohort.errors import UsageError
from cohort.rewards.judges.builtin import PROMPTS
from cohort.rewards.judges.forms import Form, form_of
from cohort.rewards.judges.reply import Question
from cohort.signals.answers import marked
from cohort.signals.rubrics import rubric_of
from cohort.signals.spans import steps, thought_and_answer, with_step_numbers
from cohort.types import Message

# What a template is given beside the columns, and of which form's answers it must show what.
GIVEN = ("prompt", "completion", "reasoning", "final", "first", "second", "criteria", "steps", "mark")
SHOWS: dict[str, list[tuple[str, ...]]] = {
    "score": [("completion",), ("final",), ("reasoning",), ("steps",)],
    "verdict": [("completion",), ("final",), ("reasoning",), ("steps",)],
    "decision": [("completion",), ("final",)],
    "criteria": [("criteria", "completion"), ("criteria", "final")],
    "pair": [("first", "second")],
    "steps": [("steps",)],
    "first-error": [("steps",)],
}
KEYS = ("answer", "system", "replies", "temperature")
# Column of rubrics.
RUBRIC = "rubric"


@dataclass(frozen=True)
class JudgePrompt:
    """A prompt of a judge; see the module.

    Attributes:
        name: of a builtin one, or of its file without its ending.
        template: text with fields in braces.
        form: how the judge answers.
        path: its file; None for a builtin one.
    """

    name: str
    template: str
    form: Form
    system: str = ""
    replies: int = 1
    temperature: float = 0.0
    path: Path | None = None

    @property
    def template_fields(self) -> list[str]:
        """Names that the template shows."""
        return fields_of(self.template)

    @property
    def columns(self) -> list[str]:
        """Columns of the data that it reads."""
        names = [name for name in self.template_fields if name not in GIVEN]
        return [*names, *([RUBRIC] if self.form.name == "criteria" else [])]

    def question(self, values: Mapping[str, Any]) -> Question:
        """The messages that ask a judge.

        Args:
            values: of the fields, by name.
        """
        shown = [str(values.get(name)) for name in ("completion", "first", "second") if values.get(name) is not None]
        # Nothing that is judged can hold it, since it depends on all of that.
        mark = f"===== {hashlib.sha256(chr(0).join(shown).encode()).hexdigest()[:12]} ====="
        text = fill(self.template, Row({**values, "mark": mark}, "row"))
        asked: Message = {"role": "user", "content": f"{text.strip()}\n\n{self.form.ask}"}
        return [{"role": "system", "content": self.system}, asked] if self.system else [asked]


def parts_of(text: str) -> tuple[JudgePrompt, str]:
    """Prompt and model of PROMPT@MODEL.

    Raises:
        UsageError: it is none, or there is no such prompt.
    """
    prompt, at, model = text.partition("@")
    if not (prompt and at and model):
        raise UsageError(
            f"judge '{text}': write PROMPT@MODEL, where PROMPT is {', '.join(PROMPTS)} or a file, and MODEL a model folder, a "
            "hub id, policy, or the URL of a server (http://HOST:PORT/v1#MODEL)"
        )
    return load_prompt(prompt), model


def load_prompt(text: str) -> JudgePrompt:
    """A builtin prompt by its name, or one of the user's by its file.

    Raises:
        UsageError: there is none, or it is no prompt of a judge; says what to write.
    """
    if text in PROMPTS:
        return parse_prompt(PROMPTS[text], text, None)
    path = Path(text).expanduser()
    try:
        found = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"prompt of a judge: {path} is no text in UTF-8 (byte {error.start})") from error
    except (OSError, ValueError) as error:
        close = get_close_matches(text, PROMPTS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        why = "there is no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise UsageError(
            f"prompt of a judge: '{text}' is none of {', '.join(PROMPTS)}, and as a file: {why}{hint}"
        ) from error
    return parse_prompt(found, path.stem, path)


def parse_prompt(text: str, name: str, path: Path | None) -> JudgePrompt:
    """A prompt from its text.

    Raises:
        UsageError: it is none; says what is wrong.
    """
    where = f"prompt of a judge: {path or name}"
    parts = text.lstrip("\ufeff").split("---", 2)
    head: Any = None
    if len(parts) == 3 and not parts[0].strip():
        try:
            head = yaml.safe_load(parts[1])
        except yaml.YAMLError as error:
            raise UsageError(f"{where}: what stands between its two '---' is no YAML: {error}") from error
    if not isinstance(head, dict) or "answer" not in head:
        raise UsageError(
            f"{where} does not say how the judge answers: begin the file with three lines, '---', 'answer: score 1-10' and "
            "'---' (or verdict, criteria, pair, steps, first-error in place of score 1-10)"
        )
    unknown = [str(key) for key in head if key not in KEYS]
    if unknown:
        raise UsageError(f"{where}: there is no setting '{unknown[0]}': there are {', '.join(KEYS)}")
    try:
        form = form_of(str(head["answer"]))
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
    replies, temperature = head.get("replies", 1), head.get("temperature", 0.0 if head.get("replies", 1) == 1 else 1.0)
    if not isinstance(replies, int) or isinstance(replies, bool) or replies < 1:
        raise UsageError(f"{where}: replies must be a whole number from 1, not {replies!r}")
    if not isinstance(temperature, (int, float)) or isinstance(temperature, bool) or not 0 <= temperature <= 2:
        raise UsageError(f"{where}: temperature must be a number from 0 to 2, not {temperature!r}")
    if replies > 1 and not temperature:
        raise UsageError(f"{where}: {replies} replies at temperature 0 are all the same: give a temperature")
    template, used = parts[2].strip(), set(fields_of(parts[2]))
    ways = SHOWS[form.name]
    if not any(used.issuperset(way) for way in ways):
        needed = " or ".join(" and ".join(f"{{{name}}}" for name in way) for way in ways)
        raise UsageError(f"{where}: with 'answer: {head['answer']}' it has to show {needed}")
    return JudgePrompt(name, template, form, str(head.get("system") or ""), replies, float(temperature), path)


def values_of(completion: str, names: Sequence[str]) -> dict[str, str] | None:
    """What a template shows of a completion, of these names; None where the completion has no such part."""
    found: dict[str, str] = {"completion": completion}
    if {"reasoning", "final"} & set(names):
        reasoning, final = parted(completion)
        if (not reasoning and "reasoning" in names) or (not final and "final" in names):
            return None
        found |= {"reasoning": reasoning, "final": final}
    if "steps" in names:
        spans = steps(completion)
        if not spans:
            return None
        found["steps"] = with_step_numbers(completion, spans)
    return found


def parted(completion: str) -> tuple[str, str]:
    """(reasoning, final answer) of a completion; "" for one that it lacks.

    The reasoning is what stands in its `<think>`; without one, all that comes before the answer that is marked.
    """
    thought, after = thought_and_answer(completion)
    final = marked(completion)
    if thought is not None and after is not None:
        return completion[slice(*thought)].strip(), (completion[slice(*after)] if final is None else final).strip()
    if final is None:
        return "", ""
    at = completion.rfind(final)
    before = completion[:at].rstrip()
    for opened in ("<answer>", "\\boxed{", "\\fbox{", "####"):
        before = before.removesuffix(opened).rstrip()
    return before, final.strip()


def numbered(criteria: Sequence[str]) -> str:
    """Criteria as a judge sees them."""
    return "\n".join(f"{number}. {text}" for number, text in enumerate(criteria, 1))


def check_rows(prompt: JudgePrompt, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """The rows have what the prompt shows.

    Raises:
        UsageError: one has not; names it and its columns.
    """
    for where, row in rows:
        for column in prompt.columns:
            if column not in row:
                what = prompt.path or f"the builtin prompt '{prompt.name}'"
                raise UsageError(
                    f"a judge's prompt, {what}, shows {{{column}}}, which {where} lacks (it has: {', '.join(row)}): add the "
                    f"column, or take it out of the prompt; what is no column is {', '.join(GIVEN)}"
                )
        if prompt.form.name == "criteria" and row.get(RUBRIC) is not None:
            rubric_of(row[RUBRIC], f"{where}, column '{RUBRIC}'", signed=True)
