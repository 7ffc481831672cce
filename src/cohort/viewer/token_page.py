"""A rollout with the numbers of every token, as the page of tokens shows it: `analysis/tokens.py` by columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from cohort.analysis import tokens
from cohort.analysis.store import Run
from cohort.viewer import query

HOW_TO_RECORD = "`cohort train --record tokens` records every token of every rollout."
_NO_NUMBERS = ("index", "id", "piece")


def page(run: Run, step: int, row: int) -> dict[str, Any]:
    """A rollout: what `tokens.view` has of it, with the tokens as `pieces` [T] and `columns` {name: [T]}, and what they can
    be coloured by; `sampled`, the number of rollouts of the step, and `recorded`, those whose tokens have all their numbers.

    Raises:
        UsageError: no such step or rollout, or a file that cannot be read.
    """
    found = tokens.view(run, step, row)
    listed = found.pop("tokens")
    every = query.brief(run, step)
    names = dict.fromkeys(name for token in listed for name in token if name not in _NO_NUMBERS)
    note = found["note"]
    return {
        **found,
        "sampled": every.num_rows if every is not None else row + 1,
        "recorded": [] if every is None else np.flatnonzero(query.recorded(every)).tolist(),
        "note": f"{note} {HOW_TO_RECORD}" if note else "",
        "pieces": [token["piece"] for token in listed],
        "columns": {name: [token.get(name) for token in listed] for name in names},
        "colourings": tokens.colourings({**found, "tokens": listed}),
    }


def token(run: Run, step: int, row: int, index: int) -> dict[str, Any]:
    """A token: its `numbers` with label, unit and what each is about, and `lines`, on which axis made them so.

    Raises:
        UsageError: no such step, rollout or token.
    """
    found = tokens.view(run, step, row)
    lines = tokens.explain(run, found, index)
    own = found["tokens"][index]
    named = [name for name in tokens.COLOURS if own.get(name) is not None]
    numbers = [
        {
            "name": name,
            "value": own[name],
            **{key: getattr(tokens.COLOURS[name], key) for key in ("label", "unit", "about")},
        }
        for name in named
    ]
    others = [name for name in own if name not in (*named, *_NO_NUMBERS) and own[name] is not None]
    numbers += [{"name": name, "value": own[name], "label": name, "unit": "", "about": ""} for name in others]
    return {"id": own.get("id"), "piece": own["piece"], "numbers": numbers, "lines": lines}
