"""Updates that are too large."""

from __future__ import annotations

import numpy as np

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.measures import percent
from cohort.doctor.record import FEW, Record, Series


@diagnosis(
    Try("a learning rate 3 to 10 times lower", settings=("lr",)),
    Try("a warm-up", settings=("warmup",)),
    Try("bound how far an update moves the policy", methods=("etr", "fiberpo")),
    Try("a cautious curvature mask", methods=("capo-curvature",)),
    cause=True,
)
def learning_rate_high(record: Record) -> Seen | None:
    """The policy moves so fast that it loses what it could do.

    Threshold: the best three steps of accuracy (of the reward, where there is none) lie above the end (a fifth of the
    steps) by a quarter of it, by 10 points (rewards: a quarter of their span) and by four standard errors; and there is
    one sign of too large updates: KL to the reference above 0.5 nats a token; 30 % of the tokens clipped; gradient norms
    at the end three times those of the beginning; entropy that doubles, or falls under a tenth, in the first fifth of
    the run; skipped updates. Or two of these signs without such a fall. Healthy runs of the embedded task have a KL of
    0.05 to 0.2, no clipping and gradient norms that double; with 30 times their learning rate, a KL of 5.
    Meaning: steps overshoot: what one batch teaches undoes what others have taught, until text or format breaks and
    there is no reward left to recover by.
    Source: measured here (learning rate x 30); PPO's target KL, arXiv:1707.06347
    """
    main = record.series_or_none("accuracy", FEW) or record.series("reward/mean", at_least=FEW)
    signs = [each for each in _signs(record) if each is not None]
    fallen = _fall(record, main)
    if not (fallen and signs) and len(signs) < 2:
        return None
    lr = record.config.get("lr")
    at = f" ({lr:g})" if isinstance(lr, int | float) else ""
    what = f"{main.name} fell" if fallen else "the policy moves fast"
    return Seen(
        "alarm" if fallen else "warning",
        f"the learning rate{at} looks too high: {what}, with {signs[0].text.split(':')[0]}",
        tuple(([fallen] if fallen else []) + signs),
    )


def _fall(record: Record, main: Series) -> Evidence | None:
    width = 3
    smooth = np.convolve(main.values, np.ones(width) / width, mode="valid")
    peak = int(smooth.argmax())
    best, span = float(smooth[peak]), float(np.ptp(main.values))
    drop = best - main.end
    bound = max(0.1, 0.25 * best) if main.name == "accuracy" else 0.25 * span
    if drop < max(bound, 4 * main.noise):
        return None
    first = int(main.steps[peak])
    text = f"{main.name} {best:.3g} from step {first}, {main.end:.3g} at steps {main.last[0]}-{main.last[1]}"
    return Evidence(text, (first, main.last[1]), {"best": best, "end": main.end}, record.metric(main.name))


def _signs(record: Record) -> list[Evidence | None]:
    """What too large updates leave behind."""
    found: list[Evidence | None] = []
    kl = record.series_or_none("kl", 5)
    if kl is not None and kl.end > 0.5:
        text = f"a KL of {kl.end:.2g} nats a token: from the reference, at steps {kl.last[0]}-{kl.last[1]}"
        found.append(Evidence(text, kl.last, {"kl": kl.end}, record.metric("kl")))
    clip = record.series_or_none("clip_fraction", 5)
    if clip is not None and clip.end > 0.3:
        text = f"{percent(clip.end)} of the tokens clipped: at steps {clip.last[0]}-{clip.last[1]}"
        found.append(Evidence(text, clip.last, {"clip_fraction": clip.end}, record.metric("clip_fraction")))
    norm = record.series_or_none("grad_norm", FEW)
    if norm is not None and norm.end > 3 * norm.start and norm.rises():
        text = f"growing gradients: norm {norm.start:.3g} at the beginning, {norm.end:.3g} at the end"
        found.append(Evidence(text, norm.last, {"start": norm.start, "end": norm.end}, record.metric("grad_norm")))
    entropy = record.series_or_none("entropy", FEW)
    if entropy is not None:
        first, early = float(entropy.values[0]), entropy.values[: max(5, len(entropy) // 5)]
        if first > 0 and (early.max() > 2 * first or early.min() < 0.1 * first):
            step, to = (
                int(entropy.steps[len(early) - 1]),
                early[np.abs(np.log(np.maximum(early, 1e-9) / first)).argmax()],
            )
            text = f"an entropy that jumps: {first:.3g} nats in the first step, {to:.3g} by step {step}"
            found.append(Evidence(text, (int(entropy.steps[0]), step), {"first": first}, record.metric("entropy")))
    skipped = record.series_or_none("skipped_updates")
    if skipped is not None and skipped.values[-1] > 0:
        text = f"updates that are not finite: {skipped.values[-1]:g} skipped"
        numbers = {"skipped": float(skipped.values[-1])}
        found.append(Evidence(text, (int(skipped.steps[-1]),), numbers, record.metric("skipped_updates")))
    return found
