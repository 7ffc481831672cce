"""Sampler and trainer disagree on the same weights."""

from __future__ import annotations

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.record import Record


@diagnosis(
    Try("compute in float32, to see whether rounding is the cause", settings=("dtype",)),
    Try("take the old log-probabilities from the trainer", settings=("old_logp",)),
    Try("sample without truncation, which the trainer does not see", settings=("top_p", "top_k", "min_p")),
)
def mismatch(record: Record) -> Seen | None:
    """The sampling engine and the trainer give the same tokens different probabilities under the same weights.

    Threshold: in float32 a largest difference above 1e-3 nats (the bound from which the training loop itself no longer
    takes the engine's values); healthy runs here have 1e-7 in the mean and 1e-5 at most. In bfloat16 a mean above 0.05:
    rounding gives 0.005 to 0.02. Which one applies follows from `dtype` and `device`, and where these say "auto" from
    the first step: a mean under 1e-5 is float32. An alarm at ten times the bound.
    Meaning: rollouts come from another policy than the one the gradient is computed for, so that even the first update
    is off-policy; a frequent hidden cause of collapse. Where it is above rounding, one of the two has a bug.
    Source: measured here; on its effect see arXiv:2510.26788 (precision mismatch between inference and training)
    """
    mean = record.series("mismatch", at_least=1)
    worst = record.series_or_none("mismatch_max")
    dtype, device = record.config.get("dtype"), str(record.config.get("device"))
    exact = dtype == "float32" or (dtype != "bfloat16" and (device == "cpu" or mean.values[0] < 1e-5))
    name, bound = ("mismatch_max", 1e-3) if exact and worst is not None else ("mismatch", 1e-4 if exact else 0.05)
    series = worst if name == "mismatch_max" and worst is not None else mean
    over = series.steps[series.values > bound]
    if len(over) < max(1, len(series) // 20):
        return None
    largest = float(series.values.max())
    what = "largest" if name == "mismatch_max" else "mean"
    text = (
        f"{what} difference up to {largest:.2g} nats, above {bound:g} in {len(over)} of {len(series)} steps "
        f"(first in step {int(over[0])})"
    )
    return Seen(
        "alarm" if largest > 10 * bound else "warning",
        f"engine and trainer disagree on log-probabilities by {largest:.2g} nats",
        (Evidence(text, (int(over[0]), int(over[-1])), {"largest": largest, "bound": bound}, record.metric(name)),),
    )
