"""The environments that can be named, as `cohort environments` lists them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib import metadata

from cohort.environments.spec import ADAPTERS
from cohort.errors import UsageError


@dataclass(frozen=True)
class Known:
    """A kind of environments.

    Attributes:
        form: how one is named.
        package: what has to be installed; empty if nothing has.
        what: what the environments are.
        example: an environment that can be tried.
    """

    form: str
    package: str
    what: str
    example: str

    @property
    def name(self) -> str:
        """Of the adapter."""
        return self.form.partition(":")[0]

    @property
    def version(self) -> str | None:
        """Of the package that is installed; None if it is not."""
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return None

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f"pip install 'cohort-rl[{self.name}]'"


OWN = Known("FILE.py:CLASS", "", "a class of your own with reset(row, seed) and step(message)", "my_world.py:World")
KNOWN = (
    Known(
        "reasoning_gym:TASK",
        "reasoning-gym",
        "a question and an answer, from more than a hundred generators",
        "reasoning_gym:chain_sum?max_terms=3",
    ),
    Known(
        "gymnasium:ID",
        "gymnasium",
        "environments whose observations are texts, or render as text",
        "gymnasium:FrozenLake-v1?actions=left,down,right,up",
    ),
    Known("textarena:ID", "textarena", "games of one player, and of several in self-play", "textarena:TicTacToe-v0"),
    Known("textworld:FILES", "textworld", "text adventures, from files that tw-make writes", "textworld:games/*.z8"),
    Known("openenv:URL", "openenv", "environments on an OpenEnv server", "openenv:http://localhost:8000"),
    Known("verifiers:ID", "verifiers", "tasksets of verifiers, with their tools and rewards", "verifiers:my-taskset"),
)


def ids(name: str) -> list[str]:
    """What can be written behind an adapter's colon, as far as that can be listed.

    Raises:
        UsageError: there is no such adapter, its package is not installed, or it has no list.
    """
    known = {each.name: each for each in KNOWN}
    if name not in known:
        raise UsageError(f"there is no adapter '{name}': there are {', '.join(known)}")
    module = importlib.import_module(ADAPTERS[name])
    if not hasattr(module, "ids"):
        raise UsageError(f"of {known[name].form} there is no list: they are {known[name].what}")
    found: list[str] = module.ids()
    return found
