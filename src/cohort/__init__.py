"""cohort: reinforcement-learning post-training with GRPO and its published variants, composable and verified.

import cohort

result = cohort.train("dapo+gdpo", model="path/to/model", data="train.jsonl", reward="math")
print(result.after, result.model)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cohort.api import compare as compare
    from cohort.api import evaluate as evaluate
    from cohort.api import train as train
    from cohort.errors import UsageError as UsageError
    from cohort.methods import Method as Method
    from cohort.methods import use as use
    from cohort.recipes.recipe import recipe as recipe
    from cohort.registry import method as method
    from cohort.types import Batch as Batch

    __version__: str

# Loaded when first used: `cohort --help` and the reward process need no torch.
_WHERE = {
    "train": "cohort.api",
    "compare": "cohort.api",
    "evaluate": "cohort.api",
    "Batch": "cohort.types",
    "UsageError": "cohort.errors",
    "Method": "cohort.methods",
    "use": "cohort.methods",
    "recipe": "cohort.recipes.recipe",
    "method": "cohort.registry",
}
__all__ = ["Batch", "Method", "UsageError", "__version__", "compare", "evaluate", "method", "recipe", "train", "use"]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        value = getattr(importlib.import_module(_WHERE[name]), name)
        globals()[name] = value
        return value
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("cohort-rl")
        except PackageNotFoundError:  # run from a checkout that is not installed
            return "0"
    raise AttributeError(f"module 'cohort' has no attribute '{name}'")
