"""Steps that move the policy far for what they learn from."""

from __future__ import annotations

import numpy as np

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.record import FEW, Record, Series

# Tokens a nat.
LOW = 10_000.0


@diagnosis(
    Try(
        "test it: cut the step (--resume --accept-changes with a third of the learning rate). If the reward rises at once, the "
        "step was too large; if not, suspect exploration or a policy that learns no more",
        settings=("lr",),
    ),
    Try(
        "more rollouts a step at the same minibatch: raise updates by the same factor, and leave the learning rate",
        settings=("prompts_per_step", "group_size", "updates"),
    ),
    Try("fewer passes over a step's rollouts", settings=("epochs",)),
    Try("clip around a moving average of the policy", methods=("million-envs",)),
    cause=True,
)
def outer_step_large(record: Record) -> Seen | None:
    """The reward stagnates, and steps move the policy far for the number of tokens that they learn from.

    Threshold: over the second half of the run accuracy (the reward, where there is none) does not rise by two standard errors,
    accuracy has room (under 90 %), and the median of `divergence/ratio` is below 10 000 tokens a nat. On the micro task of the
    tests runs that learn have medians of 59 000 and more, and those that stagnate or fall 400 to 5 500. Large batches have
    larger ratios, so that of these it says nothing until their steps are very large.
    Meaning: the loss of one batch is no good proxy of what is wanted as far away as the step goes: each step undoes part
    of what others have learnt. More rollouts with larger minibatches do not help; more updates of the same size do.
    Source: arXiv:2603.06009 (data-to-divergence ratio); the threshold is measured here
    """
    ratio = record.series("divergence/ratio", at_least=FEW)
    main = record.series_or_none("accuracy", 2 * FEW) or record.series("reward/mean", at_least=2 * FEW)
    half = len(main) // 2
    late = Series(main.name, main.steps[half:], main.values[half:])
    room = main.name != "accuracy" or main.end < 0.9
    middle = float(np.median(ratio.values))
    if not room or late.rises(2) or middle >= LOW:
        return None
    steps = (int(late.steps[0]), int(late.steps[-1]))
    text = f"{main.name} {late.start:.3g} at step {steps[0]}, {late.end:.3g} at steps {late.last[0]}-{late.last[1]}"
    evidence = [
        Evidence(text, steps, {"start": late.start, "end": late.end}, record.metric(main.name)),
        Evidence(
            f"{middle:.3g} tokens trained on for each nat that a step moves the policy (median of all steps)",
            (int(ratio.steps[0]), int(ratio.steps[-1])),
            {"ratio": middle},
            record.metric("divergence/ratio"),
        ),
    ]
    what = f"steps are too large for what they learn from: {main.name} rises no more, at {middle:.2g} tokens a nat"
    return Seen("warning", what, tuple(evidence))
