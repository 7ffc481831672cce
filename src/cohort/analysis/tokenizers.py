"""The tokenizer of a run, found in its folder, for those who look at tokens whose texts were not recorded."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from cohort.analysis.configuration import EMBEDDED
from cohort.analysis.files import entries
from cohort.analysis.store import Run
from cohort.policies.pieces import Pieces

_LOADING = threading.Lock()


def pieces(run: Run, tokens: Sequence[int]) -> list[str] | None:
    """The text of each token, by the tokenizer that stands beside one of the run's models, or that its model's name leads to
    on this machine; None if there is none, or it does not know them. No code that comes with a model is run."""
    for place in _places(run):
        with _LOADING:
            words = _load(place)
        if words is not None:
            try:
                return words(tokens)
            except Exception:  # a tokenizer of another model, or tokens of another one
                continue
    return None


def _places(run: Run) -> Iterator[str]:
    stored = [each.name for each in entries(run.folder / "checkpoints") if each.name.startswith("step-")]
    inside = ["final", "best", *(f"checkpoints/{name}/model" for name in reversed(stored))]
    for folder in (run.folder / name for name in inside):
        if (folder / "tokenizer_config.json").is_file() or (folder / "tokenizer.json").is_file():
            yield str(folder)
            break
    model = run.config.get("model")
    if isinstance(model, str):
        yield model


@lru_cache(maxsize=16)
def _load(place: str) -> Pieces | None:
    # Each import takes seconds, and the class that a folder names decodes no other way than this one.
    if place in EMBEDDED:
        from cohort.policies import toy

        return Pieces(toy.tokenizer())
    if (Path(place) / "tokenizer.json").is_file():
        from transformers import PreTrainedTokenizerFast as kind
    else:
        from transformers import AutoTokenizer as kind
    try:
        return Pieces(kind.from_pretrained(place, local_files_only=True, trust_remote_code=False))
    except Exception:
        # Whatever stands there is somebody's: without it there are the numbers of tokens.
        return None
