"""The reward rises while the answers get worse."""

from __future__ import annotations

from math import sqrt

from cohort.doctor.finding import Evidence, Missing, Seen, Try, diagnosis
from cohort.doctor.measures import percent
from cohort.doctor.record import FEW, SHORT, Record, Series


@diagnosis(
    Try("pay for the proxy only where the answer is right, or normalise each reward by itself", methods=("gdpo",)),
    Try("weigh the proxy less", settings=("reward",)),
    Try("reward the reasoning only of right answers", methods=("posterior-grpo",)),
    Try(
        "name the reward that says what is correct, and measure it on held-out data",
        settings=("accuracy", "eval_data", "eval_every"),
    ),
    cause=True,
)
def reward_hacking(record: Record) -> Seen | None:
    """The reward rises, or a component of it, while accuracy falls.

    Threshold: the mean reward ends above its beginning by more than three standard errors, and accuracy ends below its own:
    on held-out data (greedy, best measurement before against the last) by 3 points and two standard errors of that
    many prompts, otherwise, on the training prompts, by 3 points and three standard errors (two within 24 steps).
    Meaning: the policy has found something that pays and is not what is wanted. More steps make it better at that.
    Source: on optimising a proxy, Gao et al., arXiv:2210.10760; the thresholds are our choice
    """
    reward = record.series("reward/mean", at_least=FEW)
    if not reward.rises():
        return None
    fallen = _held_out(record) or _training(record)
    if fallen is None:
        return None
    first, last = reward.last
    evidence = [
        Evidence(
            f"mean reward {reward.start:.3g} at the beginning, {reward.end:.3g} at steps {first}-{last}",
            (first, last),
            {"start": reward.start, "end": reward.end},
            record.metric("reward/mean"),
        ),
        fallen,
    ]
    proxy = _proxy(record)
    if proxy is not None:
        weight = record.weights.get(proxy.name.removeprefix("reward/"), 1.0)
        evidence.append(
            Evidence(
                f"`{proxy.name}` (weight {weight:g}) rose from {proxy.start:.3g} to {proxy.end:.3g}",
                proxy.last,
                {"start": proxy.start, "end": proxy.end, "weight": weight},
                record.metric(proxy.name),
            )
        )
    what = f"`{proxy.name.removeprefix('reward/')}`" if proxy is not None else "the reward"
    return Seen("alarm", f"{what} rises while accuracy falls", tuple(evidence))


def _held_out(record: Record) -> Evidence | None:
    """A fall of held-out accuracy."""
    found = record.held_out
    if len(found) < 2:
        return None
    best_step, best = max(found[:-1], key=lambda each: each[1])
    step, last = found[-1]
    many = int(record.config.get("eval_size") or 200)
    noise = sqrt(max(best * (1 - best), last * (1 - last), 1 / many) * 2 / many)
    if best - last < max(0.03, 2 * noise):
        return None
    text = f"held-out accuracy {percent(best)} at step {best_step}, {percent(last)} at step {step}"
    return Evidence(text, (best_step, step), {"best": best, "last": last}, record.metric("eval/accuracy"))


def _training(record: Record) -> Evidence | None:
    """A fall of accuracy on training prompts."""
    try:
        accuracy = record.series("accuracy", at_least=FEW)
    except Missing:
        return None
    # Of a short run there is less to tell a fall by, and the reward has risen at the same time.
    if accuracy.rise > -0.03 or not accuracy.falls(2.0 if len(accuracy) <= SHORT else 3.0):
        return None
    text = (
        f"accuracy on training prompts {percent(accuracy.start)} at the beginning, {percent(accuracy.end)} at the end"
    )
    return Evidence(text, accuracy.last, {"start": accuracy.start, "end": accuracy.end}, record.metric("accuracy"))


def _proxy(record: Record) -> Series | None:
    """The component, other than correctness, whose rise adds most to the reward."""
    names = [name for name in record.weights if name != record.correctness]
    found = [each for name in names if (each := record.series_or_none(f"reward/{name}", FEW)) is not None]
    rising = [each for each in found if each.rises()]
    return max(rising, key=lambda s: record.weights[s.name.removeprefix("reward/")] * s.rise) if rising else None
