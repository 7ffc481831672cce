"""A reward that pays for completions that answer nothing."""

from __future__ import annotations

from cohort.doctor.attacks import NOTHING
from cohort.doctor.dataset import Data
from cohort.doctor.finding import Seen, Severity, Try, diagnosis
from cohort.doctor.measures import percent


@diagnosis(
    Try("let what pays here count only with a right answer, as in 'length if math'", settings=("reward_gate",)),
    Try("bound what it can pay, or weigh it less", settings=("reward_clip", "reward")),
    Try("normalise each reward by itself before they are added", methods=("gdpo",)),
)
def paid_for_nothing(data: Data) -> Seen | None:
    """The run's reward, all components with their gates, ranges and weights, pays for completions that answer nothing: nothing
    at all, white space, the prompt again, the form of an answer without one, its tags nested and repeated, a very long text, a
    text that asks for a high score, or (on rows with another answer) the most usual answer.

    Threshold: on average at least 30 % of what the right answer, written plainly, is paid, in the best of several texts; a
    warning from 50 %, an alarm from 90 %.
    Meaning: there is a way to be paid without answering, which is learnt faster than answering, and crowds it out.
    Source: measured here; on texts that model-based verifiers pay see arXiv:2505.22203
    """
    shares, evidence = data.worth(NOTHING, least=0.3)
    if not shares:
        return None
    found = max(shares.values())
    severity: Severity = "alarm" if found >= 0.9 else "warning" if found >= 0.5 else "note"
    what = f"completions that answer nothing are paid up to {percent(found)} of what right answers are"
    return Seen(severity, what, evidence)
