"""A verifier that contradicts itself."""

from __future__ import annotations

from collections import defaultdict

from cohort.doctor.finding import Evidence, Missing, Seen, Try, diagnosis
from cohort.doctor.measures import percent
from cohort.doctor.record import Record, Rollouts
from cohort.signals.answers import final_number, marked


@diagnosis(
    Try("a verifier that gives the same answer the same verdict; test it with `cohort score`", settings=("reward",)),
    Try("punish less what may be wrongly marked, and look at it before the update", methods=("capo-calibration",)),
    Try("average verdicts by drawing more rollouts", settings=("group_size",)),
    columns=("prompt_id", "completion", "accuracy", "finished"),
    cause=True,
)
def contradicting_verdicts(record: Record) -> Seen | None:
    """The verifier calls the same answer to the same prompt right in one rollout and wrong in another.

    Threshold: among rollouts with the same completion, word for word, in the sampled steps, 1 % have the rarer verdict (at
    least 3 of them); a sound verifier has 0 %. Where completions differ but end in the same number, written in the same
    way, 5 % (at least 10): a verifier may have other reasons there, but seldom that often. An alarm from 5 % and 10 %. A
    verdict that is turned round at random in a share q of cases shows as 0.7 q to q here.
    Meaning: part of the reward is noise: right answers are punished and wrong ones rewarded, accuracy as measured cannot
    reach its true value, and confident right groups are pulled apart.
    Source: measured here (a verifier that lies in 20 % of cases); on noisy verifiers see arXiv:2510.00915
    """
    samples = record.samples("prompt_id", "completion", "accuracy")
    same = _contradictions(samples, of_text=True)
    number = _contradictions(samples, of_text=False)
    if max(same[1], number[1]) < 20:
        raise Missing("needs 20 rollouts that give the answer of another one")
    evidence, alarm = [], False
    for (few, many, step), what, share, least, alarming in (
        (same, "the same completion", 0.01, 3, 0.05),
        (number, "a completion that ends in the same number", 0.05, 10, 0.1),
    ):
        if few >= least and few / many >= share:
            text = f"{few} of {many} rollouts that share {what} with another have the rarer verdict ({percent(few / many)})"
            evidence.append(Evidence(text, (step,), {"share": few / many, "rollouts": float(many)}, record.at(step)))
            alarm = alarm or few / many >= alarming
    if not evidence:
        return None
    worst = max(float(each.numbers["share"]) for each in evidence)
    return Seen(
        "alarm" if alarm else "warning",
        f"the verifier contradicts itself: about {percent(worst)} of the verdicts on equal answers",
        tuple(evidence),
    )


def _contradictions(samples: list[Rollouts], *, of_text: bool) -> tuple[int, int, int]:
    """(rollouts with the rarer verdict, rollouts with an equal answer, the step with most of the former)."""
    verdicts: dict[tuple[object, ...], list[tuple[bool, int]]] = defaultdict(list)
    for each in samples:
        prompts, texts = each.table.column("prompt_id").to_pylist(), each.texts("completion")
        finished = each.table.column("finished").to_pylist() if "finished" in each else [True] * len(each)
        for prompt, text, done, right in zip(prompts, texts, finished, each.numbers("accuracy"), strict=True):
            answer: object = text.strip() if of_text else final_number(text)
            if answer is not None and done:
                key = (prompt, answer) if of_text else (prompt, answer, marked(text) is not None)
                verdicts[key].append((bool(right > 0.5), each.step))
    few = many = 0
    where: dict[int, int] = defaultdict(int)
    for found in verdicts.values():
        if len(found) < 2:
            continue
        rarer = sum(right for right, _ in found) * 2 <= len(found)
        odd = [step for right, step in found if right == rarer]
        if len(odd) < len(found):
            few, many = few + min(len(odd), len(found) - len(odd)), many + len(found)
            for step in odd:
                where[step] += 1
    return few, many, max(where, key=lambda step: where[step]) if where else samples[-1].step
