"""One policy that asks and answers: both roles learn, in groups of their own, and what is asked next follows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import cohort
from cohort.data.generators.spatial.tasks import TASKS
from cohort.environments.rooms import SOLVER, Rooms, rooms
from tests import micro

# Kinds that any two things of a room have an answer for.
KINDS = ("room_size", "object_size", "distance_cam_cam", "object_counting")


class Short(Rooms):
    """A policy that says one digit to a letter: the right one stands for a sound question, or for the right answer."""

    @staticmethod
    def rows() -> list[dict[str, Any]]:
        kept = [row for row in rooms(range(20)) if row["task"] in KINDS and asks_well(row)]
        letters = [letter for letter in micro.LETTERS for _ in KINDS]
        return [{**row, "prompt": letter, "room": letter} for row, letter in zip(kept, letters, strict=False)]

    @staticmethod
    def held_out_rows() -> list[dict[str, Any]]:
        return Short.rows()[:4]

    def reset(self, row: Any, seed: int) -> Any:
        self.letter = row["prompt"]
        return super().reset(row, seed)

    def step(self, message: Any) -> Any:
        right = message["content"].strip() == micro.answer(self.letter)
        if self.asked:
            text = f"<answer>{self.truth if right else '0'}</answer>"
        else:
            names = (
                ("chair",) if self.task == "object_counting" else tuple(self.scene.named)[: TASKS[self.task].takes[0]]
            )
            question = TASKS[self.task].text(names) if right else "How tall is the moon?"
            text = f"<observation>{' '.join(names)} in a large room</observation><question>{question}</question>"
        step = super().step({**message, "content": text})
        return step if step.done else replace(step, observation=replace(step.observation, content=self.letter))


def asks_well(row: Any) -> bool:
    """Whether the question that stands for the right digit is valid in its room, and its answer not easily guessed."""
    made = Short()
    made.reset({**row, "prompt": "a"}, 0)
    return bool((made.step({"content": micro.answer("a")}).reward or 0) > 0.9)


def trained(root: Path, out: Path, **changes: Any) -> list[list[dict[str, Any]]]:
    """The rollouts of each step."""
    given = {key: value for key, value in micro.CONFIG.items() if key not in ("reward", "show_every", "data")}
    how = {"model": str(micro.folder(root)), "environment": Short, "out": str(out), "max_new_tokens": 16, "quiet": True}
    cohort.train("spatialevo(kl_beta=0.0, clip_high=0.2)", **{**given, **how, **changes})
    return [pq.read_table(path).to_pylist() for path in sorted((out / "rollouts").glob("*.parquet"))]


@pytest.mark.slow
def test_every_question_is_answered_by_rollouts_of_their_own(micro_root: Path, tmp_path: Path) -> None:
    (step,) = trained(micro_root, tmp_path / "run", prompts_per_step=2, group_size=4, steps=1)
    asked = [row for row in step if row["agent"] == "questioner"]
    answers = [row for row in step if row["agent"] == SOLVER]
    assert len(asked) == 8
    assert len(answers) == 4 * len(asked)
    assert {round(row["reward"], 4) for row in asked} <= {0.1, 1.0}
    assert {row["episode"] for row in answers} == {row["episode"] for row in asked}


@pytest.mark.exhaustive
def test_both_roles_learn(micro_root: Path, tmp_path: Path) -> None:
    steps = trained(micro_root, tmp_path / "run", prompts_per_step=8, group_size=8, steps=20)
    for agent in ("questioner", SOLVER):
        earned = [[row["reward"] for row in step if row["agent"] == agent] for step in steps]
        early, late = (sum(map(sum, part)) / sum(map(len, part)) for part in (earned[:4], earned[-4:]))
        assert late > early + 0.1, (agent, early, late)
