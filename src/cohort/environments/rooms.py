"""One policy that asks questions about rooms and answers them, each checked by geometry. Source: arXiv:2604.14144.

An agent, the questioner, is shown a room and a kind of question, and writes an observation and a question. If the question is
valid, its answer is known; it is put to another agent, the solver, several times, each time anew. Of an invalid one the solver
has to say why it is that.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Mapping
from typing import Any

from cohort.data.generators.spatial.scene import Scene, room
from cohort.data.generators.spatial.tasks import TASKS, Invalid, Names, answer, entities, feasible
from cohort.environments.base import Observation, Step
from cohort.rewards.spatial import accuracy, questioner_reward, solver_reward, validity
from cohort.types import Message

QUESTIONER, SOLVER = "questioner", "solver"
_PARTS = {part: re.compile(rf"<{part}>(.*?)</{part}>", re.DOTALL) for part in ("observation", "question", "answer")}
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
# What a judge of texts may say.
GRADES = (0.0, 0.3, 0.6, 1.0)

ASK = """{scene}

Write down what matters for a question of the kind {task}, such as "{example}", between <observation> and </observation>, then
one such question, whose answer is sure, between <question> and </question>. Write nothing else."""
SOLVE = """{scene}

{question} Answer with {form}, between <answer> and </answer>. If the question has no answer, say why instead."""


def graded(share: float) -> float:
    """The highest grade of 0, 0.3, 0.6 and 1 that a share reaches."""
    return max(grade for grade in GRADES if grade <= share)


def _inside(part: str, text: str) -> list[str]:
    return [found.strip() for found in _PARTS[part].findall(text)]


class Rooms:
    """A questioner and a solver, of one policy.

    A row has `prompt`, `task` (the kind of question), and `state` (the room). An episode has one question and `answers`
    answers, each a rollout. Of the components, `question` is a number that equal questions share, 0 for the questioner's own
    rollout; `valid` says whether the question of an answer is that, and `solved` how right the answer is.

    Attributes:
        answers: how often a question is answered.
    """

    components = ("question", "valid", "solved")

    def __init__(self, *, answers: int = 4) -> None:
        if answers < 1:
            raise ValueError("a question is answered once at least: answers=1 or more")
        self.answers = answers

    @staticmethod
    def rows() -> list[dict[str, Any]]:
        """Rooms to ask about, a row for every kind of question that each has things for."""
        return rooms(range(64))

    @staticmethod
    def held_out_rows() -> list[dict[str, Any]]:
        """Other rooms, to be measured on."""
        return rooms(range(1000, 1008))

    def reset(self, row: Mapping[str, Any], seed: int) -> Observation:
        """The room and the kind of question, to the questioner."""
        self.scene, self.task = Scene.of(row["state"]), str(row["task"])
        self.asked = 0
        return Observation(row["prompt"], agent=QUESTIONER)

    def step(self, message: Message) -> Step:
        """Take a question, and have it answered; take an answer, and have another."""
        text = str(message["content"])
        return self._take_question(text) if not self.asked else self._take_answer(text)

    def close(self) -> None:
        """Does nothing: it has no resources."""

    def observed(self, observation: str, names: Names) -> float:
        """Score of an observation: the share of the question's things that it names. A class of yours may judge otherwise."""
        if not names:
            return 1.0 if len(observation.split()) >= 5 else 0.3
        found = entities(self.scene, self.task, observation)
        return graded(sum(name in found for name in names) / len(names))

    def explained(self, reason: str, text: str) -> float:
        """Score of what is said of an invalid question: the share of the reason's longer words; see `observed`."""
        words = set(re.findall(r"[a-z]{4,}", reason.lower()))
        said = set(re.findall(r"[a-z]{4,}", text.lower()))
        return graded(len(words & said) / max(1, len(words)))

    def _take_question(self, text: str) -> Step:
        questions, observations = _inside("question", text), _inside("observation", text)
        rest = _PARTS["question"].sub("", _PARTS["observation"].sub("", text))
        question = questions[0] if questions else ""
        clean = len(questions) == 1 and bool(question) and not rest.strip()
        form = 0.0 if not clean else 1.0 if len(observations) == 1 else 0.5
        names = entities(self.scene, self.task, question)
        self.truth, self.reason = "", ""
        try:
            if not question:
                raise Invalid("there is no question")
            self.truth = answer(self.scene, self.task, names)
        except Invalid as error:
            self.reason = str(error)
        valid = not self.reason
        seen = observations[0] if observations else ""
        earned = questioner_reward(
            form,
            validity(self.task, valid, self.truth),
            self.observed(seen, names) if seen else None,
            valid=valid,
            questions=len(questions),
            tags=any(_TAG.search(part) for part in (*questions, *observations)),
        )
        if not question:
            return Step(reward=earned, done=True, end="unparseable")
        # Valid questions with the same things mean the same; of others the words must be.
        key = repr((self.task, names)) if valid else " ".join(question.lower().split())
        # A whole number that a float of 32 bits holds.
        self.key, self.question, self.asked = 1 + zlib.crc32(key.encode()) % (2**23), question, 1
        return Step(self._ask(), reward=earned)

    def _ask(self) -> Observation:
        cameras = tuple(range(TASKS[self.task].views))
        text = SOLVE.format(scene=self.scene.text(cameras), question=self.question, form=TASKS[self.task].form)
        return Observation(text, agent=SOLVER, conversation=f"answer {self.asked}")

    def _take_answer(self, text: str) -> Step:
        valid, answers = not self.reason, _inside("answer", text)
        others = len(_TAG.findall(_PARTS["answer"].sub(" ", text)))
        others += sum(len(_TAG.findall(each)) for each in answers)
        solved = (
            accuracy(self.task, f"<answer>{answers[0]}</answer>", self.truth) if valid and len(answers) == 1 else 0.0
        )
        content = solved if valid else self.explained(self.reason, text)
        earned = solver_reward(content, valid=valid, answers=len(answers), others=others)
        parts = {"question": float(self.key), "valid": float(valid), "solved": solved}
        self.asked += 1
        if self.asked > self.answers:
            return Step(reward=earned, components=parts, done=True)
        return Step(self._ask(), reward=earned, components=parts)


def rooms(numbers: range) -> list[dict[str, Any]]:
    """Rows of rooms: the number of the room, the kind of question, and what the questioner is shown."""
    found = []
    for number in numbers:
        scene = room(random.Random(f"rooms/{number}"))
        for task in feasible(scene):
            what = TASKS[task]
            names = list(scene.named)[: what.takes[0]]
            example = what.text(tuple(["chair"] if task == "object_counting" else names))
            cameras = tuple(range(what.views))
            prompt = ASK.format(scene=scene.text(cameras), task=task, example=example)
            found.append({"prompt": prompt, "room": number, "task": task, "state": scene.state()})
    return found
