"""Answers about space by the kind of question, and what asking and answering such questions earns. Source: arXiv:2604.14144."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cohort.data.generators.spatial.tasks import TASKS
from cohort.errors import UsageError
from cohort.rewards.graded import count_accuracy, relative_accuracy
from cohort.rewards.kinds import Placed, Values, plain
from cohort.rewards.verifiers import text_of, unanswered
from cohort.signals.answers import final_answer, final_number, gold_number, gold_text, is_missing

# Levels of relative accuracy in the released code.
LEVELS = 11
FORMAT_WEIGHT = 0.1
OBSERVATION_FLOOR = 0.1
MEASURED = ("object_size", "absolute_distance", "room_size", "distance_cam_obj", "distance_cam_cam")
SIDES = ("relative_direction", "direction_obj_obj", "motion_camera", "rotation_camera", "position_cam_obj")
# What of a valid question is left where its answer is easily guessed.
_TRIVIAL = {
    ("object_counting", "0"): 0.0,
    ("object_counting", "1"): 0.5,
    ("depth_order_obj_obj", "same"): 0.5,
    ("elevation_cam_cam", "same_level"): 0.0,
    ("visibility_compare", "same"): 0.5,
    ("visibility_compare", "neither"): 0.5,
}


def plainly(text: str) -> str:
    """Lower case, with underscores for spaces and hyphens, and no article before it."""
    words = text.strip().strip(".").lower().replace("-", " ").split()
    return "_".join(words[1:] if words[:1] == ["the"] and len(words) > 1 else words)


def sides(text: str) -> frozenset[str]:
    """The directions that a text names: "front-left" and "left, front" are the same."""
    words = text.lower().replace(",", " ").replace("-", " ").replace(".", " ").split()
    return frozenset(word for word in words if word not in ("and", "or"))


def accuracy(task: str, said: str, truth: str) -> float:
    """How right an answer is, in [0, 1].

    Names, orders and comparisons are right or wrong; sets of directions must be equal, but of those in one picture 2 of 3 count
    1, and 1 of 2 counts 0.1; counts and measures are graded.

    Args:
        said: a text whose final answer is read.
    """
    if task == "object_counting" or task in MEASURED:
        number = gold_number(truth)
        if number is None:
            return 0.0
        value = final_number(said)
        return count_accuracy(value, number) if task not in MEASURED else relative_accuracy(value, number, LEVELS)
    answer = final_answer(said)
    if task not in SIDES:
        return float(plainly(answer) == plainly(truth))
    found, right = sides(answer), sides(truth)
    if found == right or task != "direction_obj_obj" or not found < right:
        return float(found == right)
    return {(2, 3): 1.0, (1, 2): 0.1}.get((len(found), len(right)), 0.0)


def validity(task: str, valid: bool, truth: str) -> float:
    """How much a question is worth: 0 if it is invalid, less than 1 if its answer is easily guessed."""
    if not valid or task not in TASKS:
        return 0.0
    return _TRIVIAL.get((task, plainly(truth)), 1.0)


def questioner_reward(
    form: float, worth: float, observed: float | None, *, valid: bool, questions: int = 1, tags: bool = False
) -> float:
    """What a question earns, in [-1, 1].

    Args:
        form: 1 for an observation and a question and nothing else, 0.5 without the observation, else 0.
        worth: `validity` of the question.
        observed: score of the observation; None if it is empty.
        questions: how many there are.
        tags: the observation or the question holds tags.
    """
    if questions > 1 or tags:
        return -1.0
    seen = max(OBSERVATION_FLOOR, observed) if valid and form > 0 and observed is not None else 0.0
    return FORMAT_WEIGHT * form + (1 - FORMAT_WEIGHT) * worth * seen


def solver_reward(content: float, *, valid: bool, answers: int, others: int) -> float:
    """What an answer earns, in [-1, 1].

    Args:
        content: accuracy of the answer; of an invalid question, how well the answer says why it is that.
        answers: how many <answer> tags there are.
        others: other tags.
    """
    if not valid:
        return FORMAT_WEIGHT * -float(others > 0) + (1 - FORMAT_WEIGHT) * (content if answers < 2 else 0.0)
    if answers > 1 or others:
        return -1.0
    return float(answers == 1) * (FORMAT_WEIGHT + (1 - FORMAT_WEIGHT) * content)


def spatial(completions: Sequence[Any], answer: Sequence[Any], task: Sequence[Any], **_: Any) -> Values:
    """From 0 to 1: how right the final answer is, by the row's `task`. None if the row has no answer."""
    return [
        None if is_missing(gold) else accuracy(str(kind), text_of(said), gold_text(gold))
        for said, gold, kind in zip(completions, answer, task, strict=True)
    ]


def _known(_: str, rows: Sequence[Placed]) -> None:
    """Every row's task is one of those that can be judged."""
    for where, row in rows:
        if row.get("task") not in TASKS:
            raise UsageError(
                f"{where}: the reward 'spatial' judges {', '.join(TASKS)}, but the column 'task' holds {row.get('task')!r}: "
                "use it with rows of `cohort data spatial`"
            )


KINDS = (
    plain("spatial", {"": spatial}, verifies=True, columns=("answer", "task"), inapplicable=unanswered, check=_known),
)
