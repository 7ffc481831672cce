"""Sampling of thoughts that are cut at several budgets, each cut answered by a few summaries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from cohort.axes.sampling import thought_length
from cohort.errors import UsageError
from cohort.types import Batch, Request, Rollout, Segment, StepInfo, Turn
from cohort.types.access import ModelAccess, Sampler
from cohort.types.declare import declare
from cohort.types.step import generation_budget

CLOSING = "\n</think>\n\n**Final Answer**\n\n"


def budgets_of(budgets: Sequence[int] | None, info: StepInfo) -> tuple[int, ...]:
    """The budgets in tokens; the quarters of a rollout's limit where none are given.

    Raises:
        UsageError: the last one is above that limit.
    """
    if budgets is None:
        return tuple(math.ceil(quarter * generation_budget(info) / 4) for quarter in range(1, 5))
    limit = info.max_new_tokens
    if limit is not None and budgets[-1] > limit:
        raise UsageError(
            f"a thought is to have up to {budgets[-1]} tokens (budgets), but max_new_tokens is {limit}: raise it, or lower them"
        )
    return tuple(budgets)


@declare(provides=("thinking_segment", "summary_index", "summary_cut", "summary_score"))
def summarised(
    requests: Sequence[Request],
    sampler: Sampler,
    *,
    info: StepInfo,
    budgets: tuple[int, ...] | None = None,
    summaries: int = 4,
    summary_tokens: int = 128,
    closing: str = CLOSING,
    end_of_thinking: str = "</think>",
) -> list[Rollout]:
    """One thought for every request, and `summaries` answers behind it for every budget: S of them, K in all.

    The thought is cut at each budget (one that ended earlier is not), closed by the text `closing`, of which a thought that
    ended itself needs only what follows its end, and answered. A rollout is the thought and then, each in the context of
    its own cut, the answers. What it is graded by is the last answer, that of the largest budget.

    Fields, one number a token: `thinking_segment`, the budgets already passed, -1 outside the thought; `summary_index`,
    which answer a token belongs to, `summary_cut`, which cut that one stands behind, and `summary_score`, its reward; -1
    outside the answers. A thought of which an answer has no reward is left out.

    Raises:
        UsageError: a budget above the limit of a rollout, or an environment that answers.
    """
    lengths, end = budgets_of(budgets, info), sampler.encode(end_of_thinking)
    whole, rest = sampler.encode(closing), sampler.encode(closing.partition(end_of_thinking)[2])
    asked = [replace(each, max_new_tokens=min(each.max_new_tokens, lengths[-1])) for each in requests]
    thoughts: list[Rollout] = []
    places: list[list[int]] = []
    orders: list[Request] = []
    for trace in sampler.generate(asked):
        if len(trace.turns) > 1:
            raise UsageError(
                "thoughts are cut at budgets in answers of one turn: take a method that draws whole episodes"
            )
        thought, inside = _thought(trace, end, sampler)
        cuts = [min(length, len(thought.tokens)) for length in lengths]
        thoughts, places = [*thoughts, thought], [*places, cuts]
        for at in cuts:
            seeds = torch.randint(2**62, (summaries,), generator=sampler.rng).tolist()
            behind = whole if at < len(thought.tokens) or inside else rest
            orders += [replace(r, max_new_tokens=summary_tokens) for r in thought.branches(at, seeds, insert=behind)]
    count = len(lengths) * summaries
    answers = sampler.generate(orders)
    scores = {answer.id: answer.reward for answer in sampler.grade(answers)}
    out = []
    for i, thought in enumerate(thoughts):
        own = answers[i * count : (i + 1) * count]
        if thought.status != "failed" and all(answer.id in scores for answer in own):
            out.append(_joined(thought, own, places[i], lengths, [scores[answer.id] for answer in own], sampler))
    return out


def _thought(trace: Rollout, end: tuple[int, ...], sampler: Sampler) -> tuple[Rollout, bool]:
    """The part of a rollout up to its own end of thinking, and whether it is still inside its thought there."""
    length = thought_length(trace, end)
    inside = length == len(trace.tokens)
    if not inside:
        length += len(end)
    elif trace.tokens and trace.tokens[-1] in sampler.stop_ids:
        length -= 1
    return sampler.cut(trace, length), inside


def _joined(
    thought: Rollout,
    answers: Sequence[Rollout],
    places: Sequence[int],
    lengths: Sequence[int],
    scores: Sequence[float],
    sampler: Sampler,
) -> Rollout:
    """The thought with its answers behind it, each in the context of its own cut."""
    size, context = len(thought.tokens), thought.request.context
    segments: list[Segment] = [*thought.segments]
    turns = [Turn(0, size, ({"role": "assistant", "content": thought.text},))]
    thinking = [float(sum(length <= t for length in lengths)) for t in range(size)]
    index, cut, score = ([-1.0] * size for _ in range(3))
    each = len(answers) // len(places)
    for k, answer in enumerate(answers):
        at = places[k // each]
        new = _behind(answer.segments, at)
        start, added = len(thinking), sum(map(len, new))
        said = answer.text.removeprefix(sampler.cut(thought, at).text)
        behind = replace(context, tokens=(*context.tokens, *thought.tokens[:at]))
        turns.append(Turn(start, start + added, ({"role": "assistant", "content": said},), context=behind))
        segments += new
        for values, value in ((thinking, -1), (index, k), (cut, places.index(at)), (score, scores[k])):
            values += [float(value)] * added
    fields = {"thinking_segment": thinking, "summary_index": index, "summary_cut": cut, "summary_score": score}
    last = answers[-1]
    return thought.replace(
        segments=tuple(segments),
        turns=tuple(turns),
        text=last.text,
        status=last.status,
        fields={**thought.fields, **fields},
    )


def _behind(segments: Sequence[Segment], place: int) -> list[Segment]:
    """The segments behind the first `place` actions, at which one of them begins."""
    out, at = [], 0
    for segment in segments:
        out += [segment] if at >= place else []
        at += len(segment)
    return out


def of_summaries(batch: Batch, access: ModelAccess) -> Batch:
    """The batch with the fields `summary_scores` and `summary_split` [N, K], read off the tokens of the answers."""
    index = torch.where(batch.mask, batch["summary_index"], -torch.ones(()).to(batch["summary_index"])).long()
    count = int(index.max()) + 1
    # All tokens of an answer hold the same number; what lies outside goes into a column that is cut off.
    place = torch.where(index < 0, count, index)
    found = {}
    for name, of in (("summary_scores", "summary_score"), ("summary_split", "summary_cut")):
        values = batch[of]
        found[name] = values.new_zeros(batch.size, count + 1).scatter(1, place, values)[:, :count]
    return batch.with_rollouts(summary_scores=found["summary_scores"], summary_split=found["summary_split"].long())
