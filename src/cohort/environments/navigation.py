"""Episodes of walking to a goal that an instruction names: rules that end them, and a small world of text to walk in.

A turn is a message that holds one to three primitive actions. The rules are those of arXiv:2509.12618.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cohort.environments.base import Step
from cohort.types import Message

STOP = "stop"
MOVES = ("forward", "left", "right", STOP)
MOST = 3


def step_budget(expert_steps: float, *, tolerance: float, most: int) -> int:
    """Most primitive actions of an episode, of those that an expert needs: int(min(tolerance n, most))."""
    return int(min(tolerance * expert_steps, most))


@dataclass
class Walk:
    """What ends an episode.

    Attributes:
        step_budget: primitive actions; one more may be a stop.
        turn_budget: messages.
        radius: distance to the goal up to which a stop is a success.
        turn: number of the message that is to come, or that ended the episode, from 1.
        steps: primitive actions so far.
        reason: what ended it: "success", "goal_not_reached", "steps_exceeded", "turns_exceeded" or "format_mismatch"; empty
            while it lasts.
    """

    step_budget: int
    turn_budget: int
    radius: float
    turn: int = 1
    steps: int = 0
    reason: str = ""

    def take(self, actions: Sequence[str], act: Callable[[str], None], distance: Callable[[], float]) -> str:
        """A message's actions, until one of them ends the episode.

        Args:
            actions: an action that is none of the known ones makes the whole message invalid: nothing of it happens.
            act: makes a move.
            distance: to the goal, from where the moves have led.

        Returns:
            The reason why the episode ended; empty if it goes on.
        """
        if not actions or not all(action in MOVES for action in actions):
            self.reason = "format_mismatch"
            return self.reason
        for action in actions:
            self.steps += 1
            if action == STOP:
                self.reason = "success" if distance() <= self.radius else "goal_not_reached"
                return self.reason
            act(action)
            if self.steps > self.step_budget:
                self.reason = "steps_exceeded"
                return self.reason
        self.turn += 1
        if self.turn > self.turn_budget:
            self.reason = "turns_exceeded"
        return self.reason


LANDMARKS = ("tree", "well", "lamp", "gate")
# North, east, south, west.
HEADINGS = ((0, 1), (1, 0), (0, -1), (-1, 0))


class GridWorld:
    """A square with a few landmarks, one of which is to be walked to; where they stand is said from the walker's own view.

    The policy writes moves, such as "forward forward left"; a letter does for a word, as does "fl". The reward is 1 for a stop
    next to the goal. Rows may have the columns `world` (a number that fixes the world; else every group has its own),
    `replayed` (moves of the shortest path that have been made already), `step_budget` and `turn_budget`.

    Attributes:
        components: parts of the reward: whether the policy said stop, how far from the goal the episode ended, and the shortest
            path's number of primitive actions.
    """

    components = ("stopped", "distance", "expert_steps")

    def __init__(
        self,
        *,
        size: int = 5,
        landmarks: int = 4,
        radius: float = 1.0,
        tolerance: float = 2.0,
        most_steps: int = 120,
        turns: int = 40,
    ) -> None:
        self.size, self.radius, self.tolerance, self.most_steps, self.turns = size, radius, tolerance, most_steps, turns
        self.names = LANDMARKS[:landmarks]

    @staticmethod
    def rows() -> list[dict[str, Any]]:
        """Worlds to train on."""
        return [{"prompt": f"world {world}", "world": world} for world in range(1000)]

    @staticmethod
    def held_out_rows() -> list[dict[str, Any]]:
        """Other worlds, to be measured on."""
        return [{"prompt": f"world {world}", "world": world} for world in range(1000, 1100)]

    def reset(self, row: Mapping[str, Any], seed: int) -> str:
        """Lay the world out, and give the instruction."""
        rng = random.Random(int(row["world"]) if row.get("world") is not None else seed)
        cells = [(x, y) for x in range(self.size) for y in range(self.size)]
        self.place, *places = rng.sample(cells, 1 + len(self.names))
        self.heading = rng.randrange(4)
        self.landmarks = dict(zip(self.names, places, strict=True))
        self.goal = rng.choice([name for name in self.names if self._distance(name) > self.radius] or self.names)
        path = self._path()
        self.expert_steps = len(path) + 1
        for move in path[: int(row.get("replayed") or 0)]:
            self._move(move)
        budget = step_budget(self.expert_steps, tolerance=self.tolerance, most=self.most_steps)
        self.walk = Walk(int(row.get("step_budget") or budget), int(row.get("turn_budget") or self.turns), self.radius)
        return f"find the {self.goal}; {self._view()}"

    def step(self, message: Message) -> Step:
        """Make the moves of a message."""
        reason = self.walk.take(moves_of(str(message["content"])), self._move, self._distance)
        if not reason:
            return Step(self._view())
        parts = {
            "stopped": float(reason in ("success", "goal_not_reached")),
            "distance": self._distance(),
            "expert_steps": float(self.expert_steps),
        }
        return Step(reward=float(reason == "success"), components=parts, done=True)

    def close(self) -> None:
        """Does nothing: it has no resources."""

    def _distance(self, name: str | None = None) -> float:
        return math.dist(self.place, self.landmarks[name or self.goal])

    def _move(self, move: str) -> None:
        if move == "forward":
            (x, y), (dx, dy) = self.place, HEADINGS[self.heading]
            self.place = (min(max(x + dx, 0), self.size - 1), min(max(y + dy, 0), self.size - 1))
        else:
            self.heading = (self.heading + (1 if move == "right" else 3)) % 4

    def _view(self) -> str:
        """Where the landmarks stand, from the walker's own view."""
        said = []
        for name, (x, y) in self.landmarks.items():
            east, north = x - self.place[0], y - self.place[1]
            dx, dy = HEADINGS[self.heading]
            ahead, aside = east * dx + north * dy, east * dy - north * dx
            parts = [f"{ahead} ahead"] if ahead > 0 else [f"{-ahead} behind"] if ahead else []
            parts += [f"{aside} right"] if aside > 0 else [f"{-aside} left"] if aside else []
            said.append(f"{name} {' '.join(parts) or 'here'}")
        return ", ".join(said)

    def _path(self) -> list[str]:
        """A shortest way to the goal, to where a stop succeeds."""
        start = (self.place, self.heading)
        ways: dict[tuple[tuple[int, int], int], list[str]] = {start: []}
        waiting = [start]
        for state in waiting:
            self.place, self.heading = state
            if self._distance() <= self.radius:
                self.place, self.heading = start
                return ways[state]
            for move in MOVES[:3]:
                self.place, self.heading = state
                self._move(move)
                after = (self.place, self.heading)
                if after not in ways:
                    ways[after] = [*ways[state], move]
                    waiting.append(after)
        raise AssertionError("every cell can be reached")


def moves_of(text: str) -> list[str]:
    """The moves of a message, as words or as a run of their first letters; what is none of them stays what it is."""
    words = re.findall(r"[^\s,;.]+", text.lower())
    letters = {move[0]: move for move in MOVES}
    if len(words) == 1 and words[0] not in MOVES and set(words[0]) <= set(letters):
        words = list(words[0])
    found = [letters.get(word, word) for word in words]
    return found if len(found) <= MOST else [*found, f"more than {MOST}"]
