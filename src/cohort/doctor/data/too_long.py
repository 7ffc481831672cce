"""Prompts that leave no room for an answer."""

from __future__ import annotations

from cohort.doctor.dataset import Data, named
from cohort.doctor.finding import Evidence, Missing, Seen, Try, diagnosis
from cohort.doctor.measures import percent


@diagnosis(
    Try("leave these rows out, or shorten them", settings=("data",)),
    Try("fewer tokens for the completion, or a model with a longer context", settings=("max_new_tokens", "model")),
)
def too_long(data: Data) -> Seen | None:
    """Prompts with their completions do not fit into the model's context.

    Threshold: any whose tokens and `max_new_tokens` exceed the context; an alarm, since `cohort train` refuses them.
    Meaning: the run does not start, or rollouts would be cut off by the context.
    Source: measured here
    """
    if data.lengths is None:
        raise Missing("needs --model")
    if data.context is None:
        return None
    room = data.context - data.max_new_tokens
    rows = [i for i, length in enumerate(data.lengths, 1) if length > room]
    if not rows:
        return None
    longest = max(data.lengths)
    text = (
        f"{len(rows)} of {len(data.rows)} prompts have more than {room} tokens, the longest {longest} (context "
        f"{data.context}, max_new_tokens {data.max_new_tokens}): {named(rows, data.rows)}"
    )
    share = percent(len(rows) / len(data.rows))
    return Seen(
        "alarm",
        f"{share} of the prompts do not fit the model's context",
        (Evidence(text, (), {"longest": float(longest)}),),
    )
