"""Updates that do nothing."""

from __future__ import annotations

from cohort.doctor.finding import Evidence, Missing, Seen, Try, diagnosis
from cohort.doctor.measures import percent
from cohort.doctor.record import FEW, Record


@diagnosis(
    Try("a learning rate 3 to 10 times higher", settings=("lr",)),
    Try("a gradient norm bound that does not shrink every step", settings=("grad_clip",)),
    Try("a lower kl_beta of the method, if it holds the policy to the reference"),
)
def learning_rate_low(record: Record) -> Seen | None:
    """There is something to learn from, and the policy hardly moves.

    Threshold: over at least 30 steps, with signal in more than half of the groups and a gradient, neither accuracy nor reward
    have moved by more than three standard errors, and neither has the policy: a KL to the reference under 0.001 nats a
    token at the end or, for methods without a reference, an entropy and a length that differ by less than 3 % from the
    beginning. Healthy runs of the embedded task pass a KL of 0.01 within 10 steps.
    Meaning: rollouts are paid for, and their gradient is thrown away. Rates of 1e-6 suit models of billions of
    parameters; small models and low-rank adapters take 10 to 100 times more.
    Source: measured here
    """
    reward = record.series("reward/mean", at_least=30)
    accuracy = record.series_or_none("accuracy", 30)
    signal = record.series_or_none("zero_signal_groups")
    norm = record.series("grad_norm", at_least=FEW)
    moved = [s for s in (reward, accuracy) if s is not None and (s.rises() or s.falls())]
    if moved or norm.end < 1e-6 or (signal is not None and signal.end > 0.5):
        return None
    kl, entropy = record.series_or_none("kl", FEW), record.series_or_none("entropy", FEW)
    length = record.series_or_none("completion/length_mean", FEW)
    if kl is not None:
        still = kl.end < 1e-3
        text, numbers, where = (
            f"KL to the reference {kl.end:.2g} nats a token at the end",
            {"kl": kl.end},
            record.metric("kl"),
        )
    elif entropy is not None and length is not None:
        change = max(abs(s.rise) / max(abs(s.start), 1e-9) for s in (entropy, length))
        still = change < 0.03
        text, numbers = f"entropy and length have changed by {percent(change)} at most", {"change": change}
        where = record.metric("entropy")
    else:
        raise Missing("needs `kl`, or `entropy` and `completion/length_mean`")
    if not still:
        return None
    steps = (int(reward.steps[0]), int(reward.steps[-1]))
    lr = record.config.get("lr")
    at = f" ({lr:g})" if isinstance(lr, int | float) else ""
    flat = f"reward {reward.start:.3g} at the beginning, {reward.end:.3g} at the end, with gradient norms of {norm.end:.2g}"
    return Seen(
        "warning",
        f"the learning rate{at} looks too low: in {steps[1] - steps[0] + 1} steps the policy has hardly moved",
        (
            Evidence(text, steps, numbers, where),
            Evidence(flat, steps, {"start": reward.start, "end": reward.end}, record.metric("reward/mean")),
        ),
    )
