"""Entropy that rises without end."""

from __future__ import annotations

from math import log

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.record import FEW, Record


@diagnosis(
    Try("leave out completions whose entropy is high", methods=("gtpo",)),
    Try("lower the learning rate", settings=("lr",)),
    Try("hold the entropy near a target", methods=("dcpo",)),
    Try("stay near the reference: raise kl_beta of the method; drop any bonus for entropy"),
)
def entropy_explosion(record: Record) -> Seen | None:
    """The policy's entropy has risen far above what it was.

    Threshold: the end (a fifth of the steps, of a short run a quarter) is twice the beginning and above ln 2 nats a
    token, the value from which GTPO counts a completion as collapsing; for a policy that begins above ln 2, twice the
    beginning. An alarm where accuracy falls with it.
    Meaning: the policy flattens towards noise, most often because confident completions are punished again and again or
    the updates are too large; text falls apart soon after.
    Source: GTPO, arXiv:2508.03772 (threshold ln 2)
    """
    entropy = record.series("entropy", at_least=FEW)
    if not (entropy.end > max(log(2), 2 * entropy.start) and entropy.rises()):
        return None
    accuracy = record.series_or_none("accuracy", at_least=FEW)
    worse = accuracy is not None and accuracy.falls()
    first, last = entropy.last
    text = f"{entropy.start:.3g} nats at the beginning, {entropy.end:.3g} at steps {first}-{last}"
    if accuracy is not None:
        text += f"; accuracy {accuracy.start:.2f} before, {accuracy.end:.2f} after"
    return Seen(
        "alarm" if worse else "warning",
        f"entropy rose to {entropy.end / max(entropy.start, 1e-9):.1f} times what it was",
        (Evidence(text, (first, last), {"start": entropy.start, "end": entropy.end}, record.metric("entropy")),),
    )
