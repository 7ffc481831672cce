"""Rows of the data by the value of one of their columns, such as who labelled them."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from cohort.types import Batch
from cohort.types.access import ModelAccess
from cohort.types.declare import State


def code(value: Any) -> int:
    """A number for a value, the same in every run; texts and numbers that are written alike have the same."""
    return zlib.crc32(str(value).encode())


def count_strata(rows: Sequence[Mapping[str, Any]], *, column: str) -> State:
    """init hook: `codes` and `counts`, lists with an entry for each value of the column."""
    return with_strata({"codes": [], "counts": []}, Counter(code(row.get(column)) for row in rows))


def with_strata(state: State, counts: Mapping[int, int]) -> State:
    """The state with the values that it does not know yet, after those that it knows."""
    new = {key: n for key, n in sorted(counts.items()) if key not in state["codes"]}
    return {**state, "codes": [*state["codes"], *new], "counts": [*state["counts"], *new.values()]}


def count_new_strata(batch: Batch, state: State) -> State:
    """on_rollouts hook, for data whose rows are not known beforehand: values are counted as prompts bring them."""
    prompts = torch.stack([batch["stratum"], batch["row"]]).unique(dim=1)[0]
    return with_strata(state, Counter(prompts.tolist()))


def add_stratum(batch: Batch, access: ModelAccess, *, column: str) -> Batch:
    """read from the data

    on_scored hook: the batch with `stratum` [N] int64, the code of what the column holds.
    """
    codes = [code(value) for value in access.column(column)]
    return batch.with_rollouts(stratum=torch.tensor(codes, dtype=torch.int64, device=batch.device))
