"""Episodes that a limit cuts."""

from __future__ import annotations

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.measures import percent
from cohort.doctor.record import Record

LIMITS = {
    "episode/out_of_turns": ("turns", "max_turns"),
    "episode/out_of_tokens": ("tokens", "max_new_tokens"),
    "episode/out_of_time": ("time", "episode_seconds"),
}


@diagnosis(
    Try("raise the limit that is met", settings=("max_turns", "max_new_tokens", "turn_tokens", "episode_seconds")),
    Try("take shorter tasks first", settings=("data",)),
    Try("reward what is achieved before the end, turn by turn", methods=("multi-turn",)),
)
def episodes_cut(record: Record) -> Seen | None:
    """Many episodes end at a limit rather than by themselves.

    Threshold: 20 % over the last steps (a fifth of them, of a short run a quarter), an alarm from 50 %. Games that are lost
    when the turns are used up end so by their own rules: let the environment say `done` there.
    Meaning: the reward of the end is never given, whatever was done before, and groups are told apart by their lengths.
    Source: A Practitioner's Guide to Multi-turn Agentic RL, arXiv:2510.01132 (about twice the optimal number of turns);
    the shares are our choice
    """
    found = {name: series for name in LIMITS if (series := record.series_or_none(name, at_least=3)) is not None}
    share = sum(series.end for series in found.values())
    if share < 0.2:
        return None
    worst = max(found, key=lambda name: found[name].end)
    first, last = found[worst].last
    parts = [f"{percent(series.end)} out of {LIMITS[name][0]}" for name, series in found.items() if series.end >= 0.005]
    text = f"of the episodes of steps {first}-{last}, {', '.join(parts)}"
    numbers = {LIMITS[name][0]: series.end for name, series in found.items()}
    limit = record.config.get(LIMITS[worst][1])
    at = f" (`{LIMITS[worst][1]}` is {limit})" if limit is not None else ""
    return Seen(
        "alarm" if share >= 0.5 else "warning",
        f"{percent(share)} of the episodes end at a limit, mostly of {LIMITS[worst][0]}{at}",
        (Evidence(text, (first, last), numbers, record.metric(worst)),),
    )
