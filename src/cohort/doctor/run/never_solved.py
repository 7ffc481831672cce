"""Prompts that no rollout ever solves."""

from __future__ import annotations

from collections import defaultdict

from cohort.doctor.finding import Evidence, Missing, Seen, Try, diagnosis
from cohort.doctor.measures import percent
from cohort.doctor.record import Record


@diagnosis(
    Try("hints, or exemplars in the prompt", methods=("sage",)),
    Try("an expert's solution in the group", methods=("dagrpo",)),
    Try("draw prompts by how often they are solved", methods=("fg-expo", "dgpo")),
    Try("remove them, or check their gold answers with `cohort doctor --data`", settings=("data",)),
    columns=("prompt_id", "accuracy"),
)
def never_solved(record: Record) -> Seen | None:
    """A large part of the prompts was never solved, though the others mostly are.

    Threshold: of the prompts with at least 8 rollouts in the second half of the sampled steps, 30 % have no right one (and at
    least 10 of them), while the others are solved in half of their rollouts or more. A prompt solved with probability
    0.3 fails 8 times in 6 % of cases; what is left is another kind of prompt.
    Meaning: these prompts cost their rollouts at every visit and teach nothing; they may be too hard, unanswerable, or have
    gold answers that are wrong.
    Source: on problems that are never solved, ExPO, arXiv:2507.02834; the thresholds are our choice
    """
    samples = record.samples("prompt_id", "accuracy", at_least=2)
    samples = samples[len(samples) // 2 :]
    right: dict[str, list[bool]] = defaultdict(list)
    for each in samples:
        for prompt, accuracy in zip(each.table.column("prompt_id").to_pylist(), each.numbers("accuracy"), strict=True):
            right[prompt].append(bool(accuracy > 0.5))
    seen = {prompt: verdicts for prompt, verdicts in right.items() if len(verdicts) >= 8}
    if len(seen) < 20:
        raise Missing("needs 20 prompts with 8 rollouts in the sampled steps")
    never = [prompt for prompt, verdicts in seen.items() if not any(verdicts)]
    others = [sum(verdicts) / len(verdicts) for verdicts in seen.values() if any(verdicts)]
    share = len(never) / len(seen)
    if share < 0.3 or len(never) < 10 or not others or sum(others) / len(others) < 0.5:
        return None
    steps = tuple(each.step for each in samples)
    text = (
        f"{len(never)} of {len(seen)} prompts of steps {steps[0]}-{steps[-1]} had no right rollout; the others were solved in "
        f"{percent(sum(others) / len(others))} of theirs. For instance prompt_id {', '.join(never[:3])}"
    )
    return Seen(
        "warning",
        f"{percent(share)} of the prompts are never solved",
        (Evidence(text, steps, {"share": share, "prompts": float(len(never))}, record.at(steps[-1])),),
    )
