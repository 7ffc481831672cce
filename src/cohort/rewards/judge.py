"""Functions of the user's that judge rollouts for a method: which of two is better, which steps are wrong.

A judge is called once a batch, in the process of the run, as judge(prompts, ..., **columns): a list a name, with one
entry for each thing to judge; it takes the columns that it names. Prompts are what reward functions see, completions
are texts. It returns (or, if it is asynchronous, resolves to) one verdict for each. What is asynchronous runs in one
event loop for the life of the process, so that clients and semaphores of a module live through all steps. A judge that
takes longer than a reward function may (`reward_timeout`), or that would end the process, ends the run with a message.
"""

from __future__ import annotations

import inspect
import threading
import traceback
from asyncio import CancelledError
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextvars import ContextVar
from functools import cache
from itertools import islice
from typing import Any

from cohort.data.rows import columns_of
from cohort.errors import UsageError
from cohort.rewards.calling import TRACEBACK, RewardError
from cohort.rewards.contained import Late, in_time, staying
from cohort.rewards.interface import bound, interface
from cohort.rewards.judges.judges import Judges
from cohort.rewards.judges.methods import check_method_judge, method_judge, names_prompt
from cohort.rewards.loop import LOOP
from cohort.rewards.spec import from_file
from cohort.types import Prompt
from cohort.types.access import Judge

# Seconds that a judge may take for a batch; a run sets its own.
LIMIT: ContextVar[float] = ContextVar("limit", default=60.0)
_ASKING = threading.RLock()


def load_judge(judge: Judge, judges: Judges | None = None) -> Callable[..., Any]:
    """The function that `path.py:function` names, or that asks a model of `judges` for PROMPT@MODEL; a function is itself.

    Raises:
        UsageError: no such file, function or prompt.
    """
    if callable(judge):
        return judge
    if names_prompt(judge):
        return method_judge(judge, judges or Judges())
    if ".py:" not in judge:
        raise UsageError(
            f"judge '{judge}': name a function of yours as path/to/file.py:function, or a prompt and a model as PROMPT@MODEL"
        )
    return _of_file(judge)


@cache
def _of_file(judge: str) -> Callable[..., Any]:
    with staying():
        return from_file(judge, "judge")


def ask(
    judge: Judge, prompts: Sequence[Prompt], /, *, judges: Judges | None = None, **texts: Sequence[str]
) -> list[Any]:
    """One verdict for each prompt and what goes with it.

    Args:
        judges: whom PROMPT@MODEL asks; they limit their own time.
        texts: what is judged, under the names by which the judge takes it.

    Raises:
        RewardError: it failed, took longer than LIMIT, or returned another number of verdicts.
    """
    if not prompts:
        return []
    function = load_judge(judge, judges)
    given = {
        **columns_of([prompt.row for prompt in prompts]),
        "prompts": [prompt.source for prompt in prompts],
        **{k: list(v) for k, v in texts.items()},
    }

    if names_prompt(judge):
        return list(function(**given))

    def judged() -> list[Any]:
        with staying():
            args, named = bound(interface(function), given)
            verdicts = function(*args, **named)
            if inspect.isawaitable(verdicts):
                (verdicts,) = LOOP.run([verdicts])
                if isinstance(verdicts, BaseException):
                    raise verdicts
            if isinstance(verdicts, (str, bytes, Mapping, Set)) or not isinstance(verdicts, Iterable):
                raise RewardError(
                    f"the judge {_name(judge)} returned {type(verdicts).__name__}, not a list of verdicts"
                )
            # What has no end is not waited for.
            return list(islice(verdicts, len(prompts) + 1))

    try:
        # One at a time: rollouts that are drawn ahead of training are judged in a thread of their own.
        with _ASKING:
            verdicts = in_time(LIMIT.get(), judged)
    except RewardError:
        raise
    except Late as error:
        trace = (error.stack or "".join(traceback.format_exception(error)))[-TRACEBACK:]
        raise RewardError(
            f"the judge {_name(judge)} gave no verdicts for {len(prompts)} questions within {LIMIT.get():g} s: raise "
            f"reward_timeout, or have it answer faster; it was here:\n{trace.rstrip()}"
        ) from None
    except (Exception, SystemExit, CancelledError) as error:
        trace = "".join(traceback.format_exception(error))[-TRACEBACK:]
        raise RewardError(
            f"the judge {_name(judge)} failed: {type(error).__name__}: {error}\n{trace.rstrip()}"
        ) from error
    if len(verdicts) != len(prompts):
        count = len(verdicts) if len(verdicts) < len(prompts) else f"more than {len(prompts)}"
        raise RewardError(f"the judge {_name(judge)} returned {count} verdicts for {len(prompts)} questions")
    return verdicts


def check_judge(judge: Judge, texts: Sequence[str], columns: Sequence[str], judges: Judges | None = None) -> None:
    """The judge can be loaded, and all arguments that it asks for are given; of PROMPT@MODEL, the model is there.

    Args:
        texts: names of what is judged.
        columns: of the data.

    Raises:
        UsageError: it cannot, or some are not; names those that are.
    """
    if isinstance(judge, str) and names_prompt(judge):
        return check_method_judge(judge, judges or Judges(), texts, columns)
    given = list(dict.fromkeys(["prompts", *texts, *columns]))
    missing = interface(load_judge(judge)).missing(given)
    if missing:
        raise UsageError(
            f"the judge {_name(judge)} asks for {', '.join(map(repr, missing))}, which is not available: there are "
            f"{', '.join(given)}; add a column of that name to the data, or give the parameter a default"
        )


def _name(judge: Judge) -> str:
    return repr(judge) if isinstance(judge, str) else getattr(judge, "__name__", repr(judge))
