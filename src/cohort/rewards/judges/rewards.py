"""Rewards that a language model gives."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from typing import Any

from cohort.rewards.calling import PartlyFailed, RewardError
from cohort.rewards.judges.forms import Unread
from cohort.rewards.judges.judges import Judges
from cohort.rewards.judges.prompts import RUBRIC, JudgePrompt, numbered, values_of
from cohort.rewards.judges.reply import Reply, Unreachable
from cohort.rewards.kinds import Function, Values
from cohort.rewards.verifiers import text_of
from cohort.signals.rubrics import rubric_of, share_met
from cohort.signals.spans import steps


@dataclass
class Judging:
    """Questions to a judge, and what became of its replies.

    Attributes:
        unread: (number of the question, its reply, why it cannot be read).
        failed: number of the question -> why there is no reply.
    """

    prompt: JudgePrompt
    model: str
    judges: Judges
    replies: list[Reply] = field(default_factory=list)
    unread: list[tuple[int, str, str]] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)

    def ask(self, values: Sequence[Mapping[str, Any]], counts: Sequence[int] = ()) -> list[list[Any]]:
        """For each question the answers of its replies that could be read.

        Args:
            values: what each question shows, by name.
            counts: of each question's criteria.

        Raises:
            RewardError: the judge cannot be asked at all, or its budget is spent.
        """
        times = self.prompt.replies
        questions = [self.prompt.question(each) for each in values for _ in range(times)]
        try:
            self.replies = self.judges.ask(
                self.model,
                questions,
                temperature=self.prompt.temperature,
                samples=[sample for _ in values for sample in range(times)],
            )
        except Unreachable as error:
            raise RewardError(str(error)) from error
        out: list[list[Any]] = [[] for _ in values]
        for number, reply in enumerate(self.replies):
            asked = number // times
            if reply.error:
                self.failed[asked] = reply.error
            elif not reply.spent:
                try:
                    out[asked].append(self.prompt.form.read(reply.text, counts[asked] if counts else 0))
                except Unread as error:
                    cut = "" if reply.finished else ", and it was cut off (judge_reply)"
                    self.unread.append((asked, reply.text, f"{error}{cut}"))
        return out

    def log(self, log_metric: Any, name: str) -> None:
        """Shares of the replies, under a name: unread, and from the cache."""
        there = [reply for reply in self.replies if not (reply.error or reply.spent)]
        if there:
            log_metric(f"judge/{name}/unread", len(self.unread) / len(there))
            log_metric(f"judge/{name}/cached", sum(reply.cached for reply in there) / len(there))


def judge_reward(prompt: JudgePrompt, model: str) -> Function:
    """A function that asks a judge about completions; see `judge_each` and `judge_pairs`."""
    return partial(judge_pairs if prompt.form.name == "pair" else judge_each, prompt, model)


def judge_each(
    prompt: JudgePrompt,
    model: str,
    /,
    prompts: Sequence[Any],
    completions: Sequence[Any],
    judges: Judges,
    component: str,
    log_extra: Any,
    log_metric: Any,
    **columns: Sequence[Any],
) -> Values:
    """What the judge says of each completion, in [0, 1]; None where the prompt does not apply, or the reply cannot be read.

    A score is scaled to [0, 1]; a verdict is 1 or 0; of criteria it is the share of the rubric's weights that is met
    (arXiv:2605.12474 eq. 1); of wrong steps the share of steps that are right. Of several replies it is the mean.

    Raises:
        PartlyFailed: some questions have no reply; says why.
        RewardError: there is none to any, or the budget is spent.
    """
    shown, rows, rubrics, counts = [], [], [], []
    for row, completion in enumerate(completions):
        own = own_values(prompt, columns, row)
        values = values_of(text_of(completion), prompt.template_fields)
        if values is None or any(value in (None, "") for value in own.values()):
            continue
        rubric = rubric_of(own[RUBRIC], "a rubric", signed=True) if prompt.form.name == "criteria" else []
        listed = {"criteria": numbered([each.text for each in rubric])} if rubric else {}
        shown.append({**own, **values, "prompt": asked_text(prompts[row]), **listed})
        rows.append(row)
        rubrics.append([each.weight for each in rubric])
        counts.append(len(rubric))
    judging = Judging(prompt, model, judges)
    out: Values = [None] * len(completions)
    met: list[str | None] = [None] * len(completions)
    if rows:
        for at, answers in enumerate(judging.ask(shown, counts)):
            worth = [value_of(prompt, answer, rubrics[at], shown[at]["completion"]) for answer in answers]
            out[rows[at]] = sum(worth) / len(worth) if worth else None
            if prompt.form.name == "criteria" and answers:
                met[rows[at]] = "".join(str(int(mark)) for mark in answers[0])
        judging.log(log_metric, component)
        _record(judging, component, rows, len(completions), log_extra)
        if prompt.form.name == "criteria":
            log_extra(f"judge/{component}/met", met)
    if judging.failed:
        raise PartlyFailed(out, {rows[at]: why for at, why in judging.failed.items()})
    return out


def own_values(prompt: JudgePrompt, columns: Mapping[str, Sequence[Any]], row: int) -> dict[str, Any]:
    """What the prompt reads of a completion's row; None where the row lacks it."""
    return {name: columns[name][row] if name in columns else None for name in prompt.columns}


def value_of(prompt: JudgePrompt, answer: Any, weights: Sequence[float], completion: str) -> float:
    """An answer as a reward in [0, 1]."""
    if prompt.form.name == "criteria":
        met: list[bool] = answer
        return share_met(weights, met)
    if prompt.form.name == "steps":
        count = len(steps(completion))
        wrong: list[int] = answer
        return 1.0 - sum(number < count for number in wrong) / count
    return float(answer)


def _record(judging: Judging, name: str, rows: Sequence[int], count: int, log_extra: Any) -> None:
    """The replies, and why some could not be read, among what is recorded of each completion."""
    times = judging.prompt.replies
    said: list[str | None] = [None] * count
    why: list[str | None] = [None] * count
    for at, row in enumerate(rows):
        said[row] = "\n\n".join(reply.text for reply in judging.replies[at * times : (at + 1) * times])
    for at, _, reason in judging.unread:
        why[rows[at]] = reason
    log_extra(f"judge/{name}/reply", said)
    log_extra(f"judge/{name}/unread", why)


def judge_pairs(
    prompt: JudgePrompt,
    model: str,
    /,
    prompts: Sequence[Any],
    completions: Sequence[Any],
    judges: Judges,
    component: str,
    log_extra: Any,
    log_metric: Any,
    **columns: Sequence[Any],
) -> Values:
    """The share of its comparisons with the other completions of the same row that each wins; a tie is half a win for both.

    Every pair is shown in both orders. Where the judge prefers another answer when they are swapped, it is a tie. None for
    a completion that is alone, or of which no comparison could be read.

    Raises:
        PartlyFailed: some completions have no comparison with a reply.
        RewardError: there is no reply to any question, or the budget is spent.
    """
    groups: dict[str, list[int]] = {}
    for row, source in enumerate(prompts):
        own = own_values(prompt, columns, row)
        if all(value not in (None, "") for value in own.values()):
            groups.setdefault(json.dumps([source, own], default=str, sort_keys=True), []).append(row)
    pairs = [pair for rows in groups.values() for pair in combinations(rows, 2)]
    texts = [text_of(completion) for completion in completions]
    asked = [{**own_values(prompt, columns, a), "prompt": asked_text(prompts[a])} for a, _ in pairs]
    judging = Judging(prompt, model, judges)
    verdicts = (
        compared(judging, asked, [(texts[a], texts[b]) for a, b in pairs], log_metric, component) if pairs else []
    )
    judging.log(log_metric, component)
    won, count = [0.0] * len(texts), [0] * len(texts)
    failed: dict[int, str] = {}
    for number, ((a, b), verdict) in enumerate(zip(pairs, verdicts, strict=True)):
        if verdict is None:
            why = judging.failed.get(2 * number) or judging.failed.get(2 * number + 1)
            failed |= {a: why, b: why} if why else {}
            continue
        for row, share in ((a, 1 - verdict), (b, verdict)):
            won[row], count[row] = won[row] + share, count[row] + 1
    out: Values = [w / n if n else None for w, n in zip(won, count, strict=True)]
    failed = {row: why for row, why in failed.items() if not count[row]}
    if failed:
        raise PartlyFailed(out, failed)
    return out


def compared(
    judging: Judging, asked: Sequence[Mapping[str, Any]], pairs: Sequence[tuple[str, str]], log_metric: Any, name: str
) -> list[float | None]:
    """For each pair 0 if the first is better, 1 if the second, 0.5 for a tie; None where neither order has an answer.

    Args:
        asked: what is shown beside the two texts.
        name: under which the share that swapping turns is logged.
    """
    shown = [
        {**about, "first": one, "second": other}
        for about, (first, second) in zip(asked, pairs, strict=True)
        for one, other in ((first, second), (second, first))
    ]
    answers = judging.ask(shown)
    out: list[float | None] = []
    swapped = both = 0
    for number in range(len(pairs)):
        # As shares of the second one, in either order.
        straight = [0.5 if answer is None else float(answer) for answer in answers[2 * number]]
        turned = [0.5 if answer is None else 1.0 - answer for answer in answers[2 * number + 1]]
        if not (straight and turned):
            # Half of a comparison says as much of the order as of the answers.
            out.append(None)
            continue
        shares = sum(straight) / len(straight), sum(turned) / len(turned)
        both, swapped = both + 1, swapped + ((shares[0] - 0.5) * (shares[1] - 0.5) < 0)
        mean = sum(shares) / 2
        out.append(0.5 if min(shares) < 0.5 < max(shares) else float(mean > 0.5) if mean != 0.5 else 0.5)
    if both:
        log_metric(f"judge/{name}/swapped", swapped / both)
    return out


def asked_text(source: Any) -> str:
    """A prompt as a judge sees it: of messages their texts, with who says each where there are several."""
    if isinstance(source, str) or source is None:
        return source or ""
    said = [(str(message.get("role", "")), str(message.get("content") or "")) for message in source]
    own = [text for role, text in said if role != "system"]
    return own[0] if len(own) == 1 else "\n\n".join(f"{role}: {text}" for role, text in said)
