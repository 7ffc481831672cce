"""Answers of an environment that leave the policy little room."""

from __future__ import annotations

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.measures import percent
from cohort.doctor.record import Record


@diagnosis(
    Try(
        "have tools and environment answer with what matters (cut pages, lists and logs)",
        settings=("environment", "tools"),
    ),
    Try("raise the limit of the episode", settings=("max_new_tokens",)),
    Try("let each turn see a summary in place of all before (`Observation(fresh=True)`)", methods=("flow-grpo-agent",)),
)
def long_answers(record: Record) -> Seen | None:
    """Most of what stands in an episode was written by the environment.

    Threshold: 80 % of the tokens of the last steps (a fifth of them, of a short run a quarter); a warning where a tenth of
    the episodes are also cut by the limit of tokens, else a note.
    Meaning: passes and context are paid for tokens that are not trained on, what the policy is to find is drowned, and
    episodes run into the limit before the policy has said much.
    Source: measured here; the threshold is our choice
    """
    share = record.series_or_none("episode/answers_share", at_least=3)
    if share is None or share.end < 0.8:
        return None
    cut = record.series_or_none("episode/out_of_tokens")
    lost = 0.0 if cut is None else cut.end
    first, last = share.last
    text = f"{percent(share.end)} of the tokens of steps {first}-{last} are the environment's"
    text += f"; {percent(lost)} of the episodes ran out of tokens" if lost else ""
    numbers = {"share": share.end, "out_of_tokens": lost}
    return Seen(
        "warning" if lost >= 0.1 else "note",
        f"{percent(share.end)} of an episode are the environment's words",
        (Evidence(text, (first, last), numbers, record.metric("episode/answers_share")),),
    )
