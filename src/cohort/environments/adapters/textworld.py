"""`textworld:GAMES`: text adventures of TextWorld, registered and made by its own `textworld.gym`.

The observation is the game's text, an action a command, the reward what a command adds to the score.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from cohort.environments.adapters.shared import needed, number, said
from cohort.environments.base import Step
from cohort.environments.spec import Maker
from cohort.errors import UsageError

if TYPE_CHECKING:
    from cohort.types import Message

_BANNER = re.compile(r"\A(?:[^A-Za-z\n]*\n)+")
KINDS = (".z3", ".z5", ".z8", ".ulx", ".json")


class TextWorld:
    """Environments of one ID.

    Args:
        name: files of games, with wildcards if need be (`games/*.z8`), as `tw-make` writes them.
        options: `commands`, whether the commands that the game takes are shown; `max_steps`, most commands of a game.

    Raises:
        UsageError: the package is not installed, or there are no such games.
    """

    components = ("won",)

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.world = needed("textworld", "textworld")
        self.registered = needed("textworld.gym", "textworld")
        unknown = sorted(options.keys() - {"commands", "max_steps"})
        if unknown:
            raise UsageError(f"it has no option {unknown[0]}: there are commands and max_steps")
        self.commands = options.get("commands", False) is True
        self.most = number(options, "max_steps", 50, whole=True, least=1)
        self.files = sorted(found for found in glob.glob(os.path.expanduser(name)) if found.endswith(KINDS))
        # A game compiled for the Z-machine stands beside the description it was compiled from.
        self.files = [f for f in self.files if not (f.endswith(".json") and f[:-5] + ".z8" in self.files)]
        if not self.files:
            raise UsageError(
                f"there is no such game ({', '.join(KINDS)}); make one with "
                "tw-make tw-simple --rewards dense --goal detailed --output games/1.z8"
            )

    def rows(self, held_out: bool) -> list[dict[str, Any]] | None:
        """A row a game; none is held out."""
        if held_out:
            return None
        return [{"prompt": f"Play {os.path.basename(file)}.", "game": os.path.abspath(file)} for file in self.files]


class Adventure:
    """One episode of a game."""

    def __init__(self, of: TextWorld) -> None:
        self.of = of
        self.env: Any = None
        self.score = 0.0

    def reset(self, row: Mapping[str, Any], seed: int) -> str:
        """The game's first text. The row names the game; where it does not, the seed picks one."""
        game = row.get("game") or self.of.files[seed % len(self.of.files)]
        if not os.path.exists(game):
            raise FileNotFoundError(f"there is no game {game}")
        asked = self.of.world.EnvInfos(admissible_commands=self.of.commands, won=True, lost=True)
        made = self.of.registered.register_game(game, asked, max_episode_steps=self.of.most)
        self.env = self.of.registered.make(made)
        # Registered for this episode alone: the table would grow with every one.
        del self.of.registered.utils.registry[made]
        return self._shown(*self.env.reset())

    def step(self, message: Message) -> Step:
        """Have the game take a command."""
        text, score, done, infos = self.env.step(said(message))
        gained, self.score = float(score) - self.score, float(score)
        over = infos["won"] or infos["lost"]
        end: Literal["done", "turns"] = "turns" if done and not over else "done"
        return Step(self._shown(text, infos), gained, {"won": float(infos["won"])}, done=bool(done), end=end)

    def close(self) -> None:
        """End the game."""
        if self.env is not None:
            self.env.close()

    def _shown(self, text: str, infos: Mapping[str, Any]) -> str:
        # The status line of a terminal stands behind the last prompt; a banner of signs stands before the first text.
        shown = _BANNER.sub("", str(text).rsplit("\n>", 1)[0]).strip()
        commands = infos.get("admissible_commands") or ()
        return f"{shown}\n\nCommands: {', '.join(commands)}" if commands else shown


def load(name: str, options: Mapping[str, Any]) -> Maker:
    """The maker of its environments; see `TextWorld`."""
    of = TextWorld(name, options)
    return Maker(lambda: Adventure(of), of.components, rows=of.rows)
