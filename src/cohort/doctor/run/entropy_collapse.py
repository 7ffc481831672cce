"""Entropy that falls to nothing before the task is learnt."""

from __future__ import annotations

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.measures import percent
from cohort.doctor.record import FEW, SHORT, Record


@diagnosis(
    Try("widen the upper clip, so that rare tokens can grow", methods=("dapo",)),
    Try("hold the entropy near a target", methods=("dcpo",)),
    Try("keep the entropy of forking tokens in a band", methods=("spine",)),
    Try("sample hotter", settings=("temperature",)),
    Try("stay nearer to the reference: raise kl_beta of the method; or take smaller steps", settings=("lr",)),
)
def entropy_collapse(record: Record) -> Seen | None:
    """The policy's entropy has fallen to a small part of what it was, while answers are still wrong.

    Threshold: the end (a fifth of the steps, of a short run a quarter) lies under 15 % of the
    beginning (20 % within 24 steps), and accuracy under 90 %: a policy that has learnt its task may be sure of it.
    Healthy runs of the embedded task keep 35 to 50 % of their entropy over 80 steps. An alarm where accuracy has stopped
    rising too.
    Meaning: rollouts of a prompt become copies of each other, groups lose their signal, and what the policy does not do
    now it will hardly find any more: the accuracy reached is near its ceiling.
    Source: DAPO, arXiv:2503.14476; DCPO, arXiv:2601.12730; the factor is measured here
    """
    entropy = record.series("entropy", at_least=FEW)
    accuracy = record.series_or_none("accuracy", at_least=FEW)
    if accuracy is not None and accuracy.end >= 0.9:
        return None
    bound = (0.2 if len(entropy) <= SHORT else 0.15) * entropy.start
    if not (entropy.start > 0 and entropy.end < bound and entropy.falls()):
        return None
    first, last = entropy.last
    below = int(entropy.steps[entropy.values < bound][0])
    evidence = [
        Evidence(
            f"{entropy.start:.3g} nats at the beginning, {entropy.end:.3g} at steps {first}-{last} "
            f"({percent(entropy.end / entropy.start)}); first under {percent(bound / entropy.start)} at step {below}",
            (below, last),
            {"start": entropy.start, "end": entropy.end},
            record.metric("entropy"),
        )
    ]
    stopped = accuracy is not None and not accuracy.rises()
    if accuracy is not None:
        evidence.append(
            Evidence(
                f"accuracy {percent(accuracy.start)} at the beginning, {percent(accuracy.end)} at the end",
                (first, last),
                {"start": accuracy.start, "end": accuracy.end},
                record.metric("accuracy"),
            )
        )
    what = f"entropy fell to {percent(entropy.end / entropy.start)} of what it was, with answers still wrong"
    return Seen("alarm" if stopped else "warning", what, tuple(evidence))
