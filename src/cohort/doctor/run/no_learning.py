"""Nothing is learnt, and why."""

from __future__ import annotations

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.measures import percent
from cohort.doctor.record import Record


@diagnosis(
    Try(
        "look at rollouts and their verdicts; score some by hand with `cohort score`", settings=("reward", "show_every")
    ),
    Try("easier prompts first, or hints", methods=("fg-expo", "sage"), settings=("data",)),
    Try("learn from groups that are all wrong", methods=("ngrpo",)),
    Try("fine-tune on a few examples before", settings=("model",)),
    Try("a higher learning rate, if there is signal", settings=("lr",)),
)
def no_learning(record: Record) -> Seen | None:
    """Neither reward nor accuracy has risen over the run; says which of the known causes is there.

    Threshold: over at least 30 steps the end (a fifth of the steps) lies no more than two standard errors above the
    beginning, for the reward and for accuracy, and accuracy has room (under 90 %). An alarm.
    Meaning: the run spends its budget for nothing. The evidence names what was found among the causes: no rollout is
    ever right; groups without a signal; nothing passes the filters; rollouts that are cut off; no gradient; a policy
    that does not move. Where it names none, the reward does not depend on what the updates can change.
    Source: measured here
    """
    reward = record.series("reward/mean", at_least=30)
    accuracy = record.series_or_none("accuracy", 30)
    room = accuracy is None or accuracy.end < 0.9
    if not room or reward.rises(2) or (accuracy is not None and accuracy.rises(2)):
        return None
    steps = (int(reward.steps[0]), int(reward.steps[-1]))
    text = f"reward {reward.start:.3g} at the beginning, {reward.end:.3g} at the end"
    if accuracy is not None:
        text += f"; accuracy {percent(accuracy.start)} and {percent(accuracy.end)}"
    causes = _causes(record)
    because = f": {causes[0].text.split(' (')[0]}" if causes else ""
    evidence = Evidence(text, steps, {"start": reward.start, "end": reward.end}, record.metric("reward/mean"))
    return Seen("alarm", f"nothing was learnt in {steps[1] - steps[0] + 1} steps{because}", (evidence, *causes))


def _causes(record: Record) -> list[Evidence]:
    found = []

    def cause(name: str, test: bool, text: str, value: float) -> None:
        if test:
            series = record.series(name)
            found.append(Evidence(text, series.last, {name: value}, record.metric(name)))

    accuracy = record.series_or_none("accuracy")
    if accuracy is not None:
        never = accuracy.values.max() == 0
        cause("accuracy", never, "no rollout was ever right (the task is too hard, or the verifier rejects all)", 0.0)
    share = record.series_or_none("zero_signal_groups")
    if share is not None:
        text = f"{percent(share.end)} of the groups have no signal (all rollouts rewarded alike)"
        cause("zero_signal_groups", share.end >= 0.7, text, share.end)
    trained, sampled = record.series_or_none("rollouts/trained"), record.series_or_none("rollouts/sampled")
    if trained is not None and sampled is not None:
        part = trained.end / max(1.0, sampled.end)
        text = f"{percent(part)} of the rollouts are trained on (the rest was filtered out)"
        cause("rollouts/trained", part < 0.1, text, part)
    cut = record.series_or_none("completion/truncated")
    if cut is not None:
        text = f"{percent(cut.end)} of the rollouts are cut off (at the token limit)"
        cause("completion/truncated", cut.end >= 0.5, text, cut.end)
    norm = record.series_or_none("grad_norm")
    if norm is not None:
        cause("grad_norm", norm.end < 1e-6, f"there is no gradient (norm {norm.end:.1g})", norm.end)
    entropy = record.series_or_none("entropy")
    if entropy is not None:
        text = f"the policy is certain (entropy {entropy.end:.1g} nats)"
        cause("entropy", entropy.end < 0.01, text, entropy.end)
    kl = record.series_or_none("kl")
    if kl is not None:
        text = f"the policy does not move (KL {kl.end:.1g} nats from the reference)"
        cause("kl", kl.end < 1e-3, text, kl.end)
        cause("kl", kl.end > 0.5, f"the policy was torn away (KL {kl.end:.2g} nats from the reference)", kl.end)
    return found
