"""Judges for methods: PROMPT@MODEL in place of a function of the user's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from cohort.errors import UsageError
from cohort.rewards.calling import RewardError
from cohort.rewards.judges.judges import POLICY, Judges
from cohort.rewards.judges.prompts import RUBRIC, JudgePrompt, numbered, parts_of
from cohort.rewards.judges.rewards import Judging, asked_text, compared, own_values

# What a method shows its judge -> the form of the prompt that answers it.
ASKED = {("first", "second"): "pair", ("completions", "criteria"): "criteria", ("completions",): "steps"}


def names_prompt(judge: Any) -> bool:
    """True if it is written as PROMPT@MODEL."""
    return isinstance(judge, str) and "@" in judge and ".py:" not in judge


def asks_policy(judge: Any) -> bool:
    """True if it is a prompt to the run's own policy."""
    return names_prompt(judge) and str(judge).partition("@")[2] == POLICY


def method_judge(text: str, judges: Judges) -> Callable[..., list[Any]]:
    """The function that PROMPT@MODEL stands for; it is called as the user's would be (see `cohort.rewards.judge`).

    Raises:
        UsageError: there is no such prompt, or no method asks for its form of answer.
    """
    prompt, model = parts_of(text)

    def asked(values: Sequence[dict[str, Any]], counts: Sequence[int] = ()) -> list[list[Any]]:
        judging = Judging(prompt, model, judges)
        answers = judging.ask(values, counts)
        _settle(judging)
        return answers

    def better(prompts: Sequence[Any], first: Sequence[str], second: Sequence[str], **columns: Any) -> list[int | None]:
        judging = Judging(prompt, model, judges)
        shown = [{**own_values(prompt, columns, row), "prompt": asked_text(each)} for row, each in enumerate(prompts)]
        verdicts = compared(judging, shown, list(zip(first, second, strict=True)), judges.note, prompt.name)
        _settle(judging)
        return [int(verdict) if verdict in (0.0, 1.0) else None for verdict in verdicts]

    def met(
        prompts: Sequence[Any], completions: Sequence[str], criteria: Sequence[Sequence[str]], **columns: Any
    ) -> list[list[int]]:
        shown = [
            {
                **own_values(prompt, columns, row),
                "prompt": asked_text(prompts[row]),
                "completion": completion,
                "criteria": numbered(criteria[row]),
            }
            for row, completion in enumerate(completions)
        ]
        answers = asked(shown, [len(each) for each in criteria])
        # Of several replies what most of them say.
        return [[int(2 * sum(marks) > len(marks)) for marks in zip(*found, strict=True)] for found in answers]

    def wrong(prompts: Sequence[Any], completions: Sequence[str], **columns: Any) -> list[list[list[int]]]:
        shown = [
            {
                **own_values(prompt, columns, row),
                "prompt": asked_text(prompts[row]),
                "completion": completion,
                "steps": completion,  # the method has numbered them
            }
            for row, completion in enumerate(completions)
        ]
        # A critique that cannot be read calls no step wrong.
        return [[*found, *[[]] * (prompt.replies - len(found))] for found in asked(shown)]

    made: dict[str, Callable[..., list[Any]]] = {"pair": better, "criteria": met, "steps": wrong}
    if prompt.form.name not in made:
        raise UsageError(
            f"judge '{text}': the prompt answers with a {prompt.form.name}, which no method asks for; as a reward it is "
            f"--reward judge:{text}"
        )
    return made[prompt.form.name]


def check_method_judge(text: str, judges: Judges, texts: Sequence[str], columns: Collection[str]) -> None:
    """PROMPT@MODEL answers what a method asks, shows what there is, and its model is there.

    Args:
        texts: what the method shows its judge.
        columns: of the data.

    Raises:
        UsageError: it does not, or is not.
    """
    prompt, model = parts_of(text)
    form = ASKED.get(tuple(name for name in texts if name != "prompts"))
    if prompt.form.name != form:
        wanted = f"has 'answer: {form}'" if form else "is a function of yours, as path.py:function"
        raise UsageError(
            f"judge '{text}': the prompt answers with '{prompt.form.name}', but what the method asks {wanted}"
        )
    missing = [name for name in read_columns(prompt) if name not in columns]
    if missing:
        raise UsageError(
            f"judge '{text}': its prompt shows {{{missing[0]}}}, which is no column of the data ({', '.join(columns)}): add "
            "one of that name, or take it out of the prompt"
        )
    judges.check(model)


def read_columns(prompt: JudgePrompt) -> list[str]:
    """Columns that a method's judge reads; the criteria come from the method."""
    return [name for name in prompt.columns if name != RUBRIC]


def _settle(judging: Judging) -> None:
    """Note what could not be read; a question without a reply ends it."""
    judging.log(judging.judges.note, judging.prompt.name)
    if judging.failed:
        why = next(iter(judging.failed.values()))
        raise RewardError(f"the judge '{judging.prompt.name}@{judging.model}' failed: {why}")
