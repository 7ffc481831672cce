"""`textarena:ID`: games of TextArena, of one player or of several.

What a player is shown is what came since its last turn: the game's rules first, then what others did, and the board. With
several players the policy plays all of them (self-play): each is an agent with a conversation, a rollout and groups of its
own. The reward is the game's, at its end.
"""

from __future__ import annotations

import contextlib
import importlib.util
import random
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from cohort.environments.adapters.shared import ROWS, near, needed, number, said, seeded
from cohort.environments.base import Observation, Step
from cohort.environments.spec import Maker
from cohort.errors import UsageError

if TYPE_CHECKING:
    from cohort.types import Message

# Counts that are tried, in this order, where none is given: some games of several take any.
PLAYERS = (2, 1, 3, 4, 5, 6)
# Where games list the moves that there are.
_MOVES = re.compile(r"\b(?:available|valid|legal|possible)\b[^:\n]*:(.*)", re.I | re.S)
_MOVE = re.compile(r"\[[^\[\]]+\]")

# Held by who draws from the process's generators: environments have threads of their own.
SHARED = threading.Lock()

# What plays another player: the text that it is shown, and chance -> what it says.
Opponent = Callable[[str, random.Random], str]


class TextArena:
    """Environments of one ID.

    Args:
        name: ID of the game.
        options: `players`, how many there are; `opponent`, what plays all but one of them: `self` (the policy, the default),
            `random` (one of the moves that the game lists), or `path.py:function` of the text that is shown; `fresh`, whether a
            player is shown the whole game anew each turn, as the ID's wrappers tell it, and sees none of its earlier
            turns; `size` and `seed` of its rows; all others go to `textarena.make`.

    Raises:
        UsageError: the package is not installed, there is no such game, or it cannot be set up.
    """

    components = ("invalid",)

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.arena = needed("textarena", "textarena")
        self.name = name
        own = {"size", "seed", "players", "opponent", "fresh"}
        self.arguments = {key: value for key, value in options.items() if key not in own}
        self.size = number(options, "size", ROWS, whole=True, least=1)
        self.seed = number(options, "seed", 0, whole=True)
        self.registry = needed("textarena.envs.registration", "textarena").ENV_REGISTRY
        if name not in self.registry:
            raise UsageError(f"there is no such game{near(name, self.registry)}")
        self.fresh = options.get("fresh") in (True, 1)
        given = options.get("players")
        counts = PLAYERS if given is None else (number(options, "players", 1, whole=True, least=1),)
        self.players, shown = self._tried(counts)
        self.opponent = None if self.players == 1 else _opponent(options.get("opponent", "self"))
        self.prompt = shown

    def rows(self, held_out: bool) -> list[dict[str, Any]]:
        """A row a seed."""
        return seeded(self.prompt, self.size, self.seed, held_out)

    def _tried(self, counts: tuple[int, ...]) -> tuple[int, str]:
        """How many play, and what the first is shown."""
        failed: Exception | None = None
        for count in counts:
            game = Game(self)
            game.names = [""] * count
            try:
                return count, game.begin(0)
            except (AssertionError, ValueError, LookupError, ImportError, OSError, SyntaxError, TypeError) as error:
                # Which of them says what is wrong cannot be known; that of the count named, or of the first, is likeliest.
                failed = failed or error
        lines = [line.strip(" *\n") for line in str(failed).splitlines() if line.strip(" *\n")]
        reason = f"{type(failed).__name__}: {' '.join(lines)[:300]}"
        of = f" for {counts[0]} players" if len(counts) == 1 else ""
        raise UsageError(f"it cannot be set up{of}: {reason}") from failed


class Game:
    """One episode of a game."""

    def __init__(self, of: TextArena) -> None:
        self.of = of
        self.names: list[str] = []
        self.dice: Any = None

    def reset(self, row: Mapping[str, Any], seed: int) -> Observation:
        """What the player who moves first is shown; the row's seed goes before that of the run."""
        seed, count = int(row.get("seed", seed)), self.of.players
        alone = count == 1 or self.of.opponent is not None
        self.names = [""] * count if alone else [f"player {i}" for i in range(count)]
        # Against an opponent, the policy plays each of the players in turn from game to game.
        self.own = seed % count if alone else None
        self.chance = random.Random(seed)
        seen, done = self._others(self.begin(seed), False)
        if done:
            raise ValueError("the game is over before the policy's first move")
        return self._shown(seen)

    def begin(self, seed: int) -> str:
        """Set the game up; what the first player is shown."""
        with self._chance():
            random.seed(seed)
            np.random.seed(seed % 2**32)
            self.game = self.of.arena.make(self.of.name, **self.of.arguments)
            self.game.reset(num_players=len(self.names), seed=seed)
        self.core = self.game
        while hasattr(self.core, "env"):
            self.core = self.core.env
        return self._seen()

    def step(self, message: Message) -> Step:
        """Make the move that was said, and have opponents make theirs."""
        state = self.core.state
        done = self._play(said(message))
        seen, done = self._others("" if done else self._seen(), done)
        if not done:
            return Step(self._shown(seen))
        rewards = {i: float(value) for i, value in (state.rewards or {}).items()}
        lost = {i: float(bool(state.game_info.get(i, {}).get("invalid_move"))) for i in rewards}
        if self.own is not None:
            invalid = lost.get(self.own, 0.0)
            return Step(reward=rewards.get(self.own, 0.0), components={"invalid": invalid}, done=True)
        spoke = state.current_player_id
        shares = {self.names[i]: value for i, value in rewards.items()}
        return Step(reward=0.0, components={"invalid": lost.get(spoke, 0.0)}, done=True, rewards=shares)

    def close(self) -> None:
        """Does nothing: a game holds nothing but itself."""

    def _play(self, action: str) -> bool:
        with self._chance():
            done, _ = self.game.step(action=action)
        return bool(done)

    def _others(self, seen: str, done: bool) -> tuple[str, bool]:
        """Have opponents move until it is the policy's turn; what it is shown, and whether the game is over."""
        while not done and self.own is not None and self.core.state.current_player_id != self.own:
            assert self.of.opponent is not None
            done = self._play(self.of.opponent(seen, self.chance))
            seen = "" if done else self._seen()
        return seen, done

    def _shown(self, seen: str) -> Observation:
        return Observation(seen, agent=self.names[self.core.state.current_player_id], fresh=self.of.fresh)

    def _seen(self) -> str:
        """What the player to move has not been shown yet."""
        if self.of.fresh:
            return str(self.game.get_observation()[1]).strip()
        kinds = self.of.arena.ObservationType
        player, news = self.core.get_observation()
        roles = self.core.state.role_mapping
        last = max((i for i, (*_, kind) in enumerate(news) if kind is kinds.GAME_BOARD), default=-1)
        texts = []
        for i, (sender, text, kind) in enumerate(news):
            if kind is kinds.PLAYER_ACTION and sender == player:
                continue
            if kind is kinds.GAME_BOARD and i != last:
                continue
            told = kind is kinds.PLAYER_ACTION
            texts.append(f"[{roles.get(sender, f'Player {sender}')}] {text}" if told else str(text))
        return "\n".join(texts).strip() or "Your turn."

    @contextlib.contextmanager
    def _chance(self) -> Iterator[None]:
        """Games draw from generators that all share: each has states of its own, whatever others draw between its moves."""
        with SHARED:
            before = random.getstate(), np.random.get_state()
            if self.dice is not None:
                random.setstate(self.dice[0])
                np.random.set_state(self.dice[1])
            try:
                yield
            finally:
                self.dice = random.getstate(), np.random.get_state()
                random.setstate(before[0])
                np.random.set_state(before[1])


def load(name: str, options: Mapping[str, Any]) -> Maker:
    """The maker of its environments; see `TextArena`."""
    of = TextArena(name, options)
    return Maker(lambda: Game(of), of.components, rows=of.rows)


def ids() -> list[str]:
    """All games; each also has variants that show it in another way (`-train`, `-raw`)."""
    registry = needed("textarena.envs.registration", "textarena").ENV_REGISTRY
    return sorted(name for name in registry if not name.endswith(("-raw", "-train")))


def any_move(seen: str, chance: random.Random) -> str:
    """One of the moves that a game lists.

    Raises:
        ValueError: it lists none.
    """
    listed = _MOVES.findall(seen)
    moves: list[str] = _MOVE.findall(listed[-1]) if listed else []
    if not moves:
        raise ValueError(
            "opponent=random needs a game that lists its moves; name a function instead, or play with self"
        )
    return chance.choice(moves)


def _opponent(text: Any) -> Opponent | None:
    """What plays the other players; None if the policy does."""
    if text == "self":
        return None
    if text == "random":
        return any_move
    path, _, name = str(text).rpartition(":")
    spec = importlib.util.spec_from_file_location("cohort_opponent", path) if path.endswith(".py") else None
    if spec is None or spec.loader is None or not name:
        raise UsageError(f"opponent is self, random, or path.py:function, not {text!r}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        function = getattr(module, name)
    except (OSError, AttributeError, SyntaxError, ImportError) as error:
        raise UsageError(f"the opponent {text} cannot be loaded: {error}") from error
    return lambda seen, _: str(function(seen))
