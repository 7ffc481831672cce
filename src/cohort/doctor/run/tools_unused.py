"""Tools that the policy does not call."""

from __future__ import annotations

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.record import Record


@diagnosis(
    Try("say in the system message what the tools are for, with an example of a call", settings=("system",)),
    Try("train on examples of calls first (`cohort sft`), so that some rollouts begin with one", settings=("model",)),
    Try("take prompts that cannot be answered without the tools", settings=("data",)),
    cause=True,
)
def tools_unused(record: Record) -> Seen | None:
    """The policy has tools and hardly ever calls one.

    Threshold: under 0.1 calls an episode over the last steps (a fifth of them, of a short run a quarter), an alarm under
    0.01. Where few rollouts call a tool, few groups hold one that did and one that did not, and nothing tells calls from
    answers without.
    Meaning: what is learnt is to answer without tools. It does not mend itself: what is never drawn is never rewarded.
    Source: measured here; the thresholds are our choice
    """
    calls = record.series_or_none("tools/calls_mean", at_least=3)
    if calls is None or calls.end >= 0.1:
        return None
    first, last = calls.last
    text = f"{calls.end:.3g} calls an episode in steps {first}-{last}, after {calls.start:.3g} in the first ones"
    where = record.metric("tools/calls_mean")
    return Seen(
        "alarm" if calls.end < 0.01 else "warning",
        f"the policy makes {calls.end:.2g} calls an episode",
        (Evidence(text, (first, last), {"calls": calls.end}, where),),
    )
