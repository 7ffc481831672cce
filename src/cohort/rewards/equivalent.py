"""`equivalent:PROMPT@MODEL`: rules say what is equivalent, and a model is asked of what they reject and may be an answer.

Source: arXiv:2505.22203. What the rules accept stays right whatever the model would say. It is shown the extracted answer
alone, so that nothing around it can speak to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from cohort.errors import UsageError
from cohort.rewards.calling import PartlyFailed
from cohort.rewards.formulas import checked
from cohort.rewards.judged import KINDS as JUDGED
from cohort.rewards.judges.judges import Judges
from cohort.rewards.kinds import Function, Kind, Values
from cohort.rewards.verifiers import text_of, unanswered
from cohort.signals.answers import gold_text, is_missing
from cohort.signals.verification import asks_model, never_right

if TYPE_CHECKING:
    from cohort.rewards.judges.prompts import JudgePrompt

(JUDGE,) = JUDGED
YES_OR_NO = ("decision", "verdict")


def equivalent(
    prompt: JudgePrompt,
    model: str,
    /,
    prompts: Sequence[Any],
    completions: Sequence[Any],
    answer: Sequence[Any],
    judges: Judges,
    component: str,
    log_extra: Any,
    log_metric: Any,
    **columns: Sequence[Any],
) -> Values:
    """1 if what the last box holds is the row's `answer` by the rules of `formula`, else what the judge says of it.

    The judge is asked only where there is an answer, it may be one, not both are plain numbers, and the row's `type` is not
    mcq. None if the row has no answer, or the judge's reply cannot be read.

    Raises:
        PartlyFailed: some questions have no reply.
    """
    from cohort.rewards.judges.rewards import judge_each

    out: Values = [None] * len(completions)
    asked: list[tuple[int, str]] = []
    for row, (completion, gold) in enumerate(zip(completions, answer, strict=True)):
        if is_missing(gold):
            continue
        wanted = gold_text(gold)
        found = checked(text_of(completion), wanted, str(columns["type"][row]) if "type" in columns else "")
        out[row] = float(bool(found.right))
        said = found.answer or ""
        if found.right is None and asks_model(False, said, wanted) and not never_right(said, wanted):
            asked.append((row, said))
    log_metric("equivalent/asked", len(asked) / max(len(completions), 1))
    if not asked:
        return out
    rows = [row for row, _ in asked]

    def spread(name: str, values: Sequence[Any]) -> None:
        logged = dict(zip(rows, values, strict=True))
        log_extra(name, [logged.get(row) for row in range(len(completions))])

    held = {**columns, "answer": answer}
    given = {name: [held[name][row] for row in rows] for name in prompt.columns if name in held}
    shown, boxes = [prompts[row] for row in rows], [rf"\boxed{{{said}}}" for _, said in asked]
    failed: dict[int, str] = {}
    try:
        verdicts = judge_each(prompt, model, shown, boxes, judges, component, spread, log_metric, **given)
    except PartlyFailed as partly:
        verdicts, failed = partly.values, {rows[at]: why for at, why in partly.why.items()}
    for row, value in zip(rows, verdicts, strict=True):
        out[row] = value
    if failed:
        raise PartlyFailed(out, failed)
    return out


def _make(argument: str) -> Function:
    from cohort.rewards.judges.prompts import parts_of

    prompt, model = parts_of(argument)
    if prompt.form.name not in YES_OR_NO:
        raise UsageError(
            f"reward 'equivalent:{argument}': its judge says yes or no; the prompt '{prompt.name}' asks for another answer "
            f"({prompt.form.name}): take `equal`, or a file with answer: decision or verdict"
        )
    return partial(equivalent, prompt, model)


KINDS = (
    Kind(
        "equivalent",
        ("equivalent:PROMPT@MODEL",),
        _make,
        verifies=True,
        columns=("answer",),
        inapplicable=unanswered,
        check=JUDGE.check,
        get_ready=JUDGE.get_ready,
        files=JUDGE.files,
        place="run",
    ),
)
