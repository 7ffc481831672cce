"""Prompts that the model never solves, or always."""

from __future__ import annotations

from cohort.doctor.dataset import Data
from cohort.doctor.finding import Evidence, Missing, Seen, Severity, Try, diagnosis
from cohort.doctor.measures import percent


@diagnosis(
    Try("easier data, or hints", methods=("sage",), settings=("data",)),
    Try("draw prompts by how often they are solved", methods=("fg-expo", "dgpo")),
    Try("learn from groups that are all wrong", methods=("ngrpo",)),
    Try("fine-tune on examples first, or take a stronger model", settings=("model",)),
)
def out_of_reach(data: Data) -> Seen | None:
    """The model solves most of the prompts never, or always, so that there is little to learn from.

    Threshold: with `--samples K`, half of the prompts that were tried (64 at most) are never right in K completions, or 80 %
    always; an alarm where 95 % are one or the other, since next to all groups would be without a signal. A prompt
    solved with probability 0.2 fails 8 times in 17 % of cases.
    Meaning: groups of such prompts have no signal; the run pays for them and learns from the rest.
    Source: DAPO, arXiv:2503.14476; on problems that are never solved, ExPO, arXiv:2507.02834
    """
    if data.solved is None:
        raise Missing("needs --model and --samples K, to draw completions")
    right, samples = data.solved
    if samples < 4 or len(right) < 10:
        raise Missing("needs --samples 4 or more, and 10 prompts")
    never = sum(each == 0 for each in right) / len(right)
    always = sum(each == samples for each in right) / len(right)
    if never < 0.5 and always < 0.8:
        return None
    text = f"{len(right)} prompts, {samples} completions each: {percent(never)} never right, {percent(always)} always"
    what = (
        f"{percent(never)} of the prompts are never solved" if never >= 0.5 else f"{percent(always)} are always solved"
    )
    severity: Severity = "alarm" if never + always >= 0.95 else "warning"
    return Seen(severity, what, (Evidence(text, (), {"never": never, "always": always}),))
