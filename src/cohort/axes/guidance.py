"""Guidance axis: what is put into the prompt.

A function takes the step's requests and a sampler, has them drawn and scored (`sampler.draw`) in whatever
dress it likes, and returns scored rollouts of their prompts: a group for each prompt.

A rollout that was drawn with guidance is trained on in the context that it was drawn in. Where it is to be trained on as an
answer to the prompt alone, `without_guidance` takes the guidance away again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from cohort.errors import UsageError
from cohort.signals.questions import question, rewrite_question
from cohort.types import Context, Group, Request, Rollout, Segment, grouped
from cohort.types.access import Sampler


def none(requests: Sequence[Request], sampler: Sampler) -> list[Rollout]:
    """The prompts as they are."""
    return sampler.draw(requests)


def by_prompt(requests: Iterable[Request]) -> dict[str, list[Request]]:
    """prompt id -> its requests, in order of first appearance."""
    out: dict[str, list[Request]] = {}
    for request in requests:
        out.setdefault(request.prompt.id, []).append(request)
    return out


def accuracy(group: Group) -> float:
    """Share of the group's rollouts that are correct; those of which it is not known count as wrong."""
    return sum(rollout.accuracy > 0 for rollout in group.rollouts) / len(group.rollouts)


def with_guidance(
    request: Request, template: str, text: str, sampler: Sampler, *, whole: bool = False, salt: int = 0, **meta: object
) -> Request:
    """The request on a prompt that shows `text`, cut from the left where the model's context would not hold the completion.

    Without a text, or where no end of it fits, the prompt stays as it is.

    Args:
        template: with the places {question} and {text}.
        whole: the text is not to be cut.
        salt, meta: see `rewrite_question`.

    Raises:
        UsageError: it would have to be cut all the same.
    """
    while text:
        shown = template.format(question=question(request.prompt), text=text)
        made = rewrite_question(request, shown, sampler, salt=salt, **meta)
        limit = sampler.context_length
        over = 0 if limit is None else len(made.context) + request.max_new_tokens - limit
        if over <= 0:
            return made
        if whole:
            raise UsageError(
                f"{request.prompt.where or 'a prompt'}: with what the method puts into it the prompt has {len(made.context)} "
                f"tokens, which leaves no room for {request.max_new_tokens} more in the model's context of {limit}: shorten "
                "the text, or lower max_new_tokens"
            )
        # At least one character a round; of tokens that are several characters too few go, and the next round takes more.
        text = text[over:]
    return replace(request, seed=request.seed + salt, meta={**request.meta, **meta})


def without_guidance(rollout: Rollout) -> Rollout:
    """The rollout as an answer to the prompt as it is: its log-probabilities there are not those it was drawn with, and have
    to be scored before it is trained on. Contexts of its later turns lose the guidance, too."""
    return rollout.in_context(Context(rollout.prompt.tokens))


def draw_groups(sampler: Sampler, requests: Sequence[Request]) -> dict[str, Group]:
    """prompt id -> the group of its rollouts, drawn and scored; nothing is drawn for no requests."""
    return {group.prompt.id: group for group in grouped(sampler.draw(requests))} if requests else {}


def flattened(groups: Iterable[Group]) -> list[Rollout]:
    """The rollouts of groups, those of a group together."""
    return [rollout for group in groups for rollout in group.rollouts]


def behind_beginnings(requests: Sequence[Request], sampler: Sampler) -> list[Rollout]:
    """Rollouts that go on behind the text that a curriculum left as `start` on their requests; it is not trained."""

    def begun(request: Request) -> Request:
        start = sampler.encode_completion(request.prompt, request.meta.get("start", ""))
        return replace(request, history=(Segment(start, "method"),)) if start else request

    return sampler.draw([begun(request) for request in requests])
