"""Functions of the user's that judge rollouts for a method: which of two is better, which steps are wrong.

A judge is called once a batch, in the process of the run, as judge(prompts, ..., **columns): a list a name, with one
entry for each thing to judge; it takes the columns that it names. Prompts are what reward functions see, completions
are texts. It returns (or, if it is asynchronous, resolves to) one verdict for each.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from cohort.batch import Prompt
from cohort.errors import UsageError
from cohort.rewards.scorer import RewardError
from cohort.rewards.spec import from_file
from cohort.rewards.worker import accepted

Judge = str | Callable[..., Any]


@cache
def load_judge(judge: Judge) -> Callable[..., Any]:
    """The function that `path.py:function` names; a function is itself.

    Raises:
        UsageError: no such file or function.
    """
    if callable(judge):
        return judge
    if ".py:" not in judge:
        raise UsageError(f"judge '{judge}': name a function of yours as path/to/file.py:function")
    return from_file(judge, "judge")


def ask(judge: Judge, prompts: Sequence[Prompt], **texts: Sequence[str]) -> list[Any]:
    """One verdict for each prompt and what goes with it.

    Args:
        texts: what is judged, under the names by which the judge takes it.

    Raises:
        RewardError: it failed, or returned another number of verdicts.
    """
    if not prompts:
        return []
    function = load_judge(judge)
    rows = [prompt.row for prompt in prompts]
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    given = {**columns, "prompts": [prompt.source for prompt in prompts], **{k: list(v) for k, v in texts.items()}}
    try:
        verdicts = function(**accepted(function, given))
        if inspect.isawaitable(verdicts):
            verdicts = asyncio.run(_await(verdicts))
        verdicts = list(verdicts)
    except Exception as error:
        raise RewardError(f"the judge {_name(judge)} failed: {type(error).__name__}: {error}") from error
    if len(verdicts) != len(prompts):
        raise RewardError(f"the judge {_name(judge)} returned {len(verdicts)} verdicts for {len(prompts)} questions")
    return verdicts


async def _await(verdicts: Any) -> Any:
    return await verdicts


def _name(judge: Judge) -> str:
    return repr(judge) if isinstance(judge, str) else getattr(judge, "__name__", repr(judge))
