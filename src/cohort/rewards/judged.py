"""Rewards that a language model gives: `judge:PROMPT@MODEL`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cohort.rewards.judges.judges import Judges
from cohort.rewards.kinds import Function, Kind, Placed


def _make(argument: str) -> Function:
    from cohort.rewards.judges.prompts import parts_of
    from cohort.rewards.judges.rewards import judge_reward

    return judge_reward(*parts_of(argument))


def _check(argument: str, rows: Sequence[Placed]) -> None:
    from cohort.rewards.judges.prompts import check_rows, parts_of

    check_rows(parts_of(argument)[0], rows)


def _get_ready(argument: str, judges: Judges) -> None:
    from cohort.rewards.judges.prompts import parts_of

    judges.check(parts_of(argument)[1])


def _inapplicable(argument: str, rows: Sequence[Mapping[str, Any]]) -> list[tuple[list[int], str]]:
    from cohort.rewards.judges.prompts import parts_of

    columns = parts_of(argument)[0].columns
    return [([i for i, row in enumerate(rows) if row.get(name) in (None, "")], f"have no {name}") for name in columns]


def _files(argument: str) -> list[Path]:
    from cohort.rewards.judges.prompts import parts_of

    path = parts_of(argument)[0].path
    return [] if path is None else [path]


def _components(argument: str) -> dict[str, str]:
    """Called by the prompt's name, so that judges of several prompts are told apart."""
    from cohort.rewards.judges.prompts import parts_of

    return {parts_of(argument)[0].name: argument}


KINDS = (
    Kind(
        "judge",
        ("judge:PROMPT@MODEL",),
        _make,
        inapplicable=_inapplicable,
        check=_check,
        get_ready=_get_ready,
        files=_files,
        components=_components,
        place="run",
    ),
)
