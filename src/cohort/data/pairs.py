"""Completions that somebody else wrote, with a preference between two of them or a label for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cohort.data.messages import is_chat, messages_of
from cohort.data.prompts import PromptSpec, Source, make_prompt, read_source, template_of
from cohort.data.rows import Row
from cohort.errors import UsageError, shown
from cohort.types import Prompt
from cohort.types.policy import Renderer

FORM = "a row has 'chosen' and 'rejected', or one 'completion' and its 'label'"
# Column -> the label of what stands in it.
SIDES = {"chosen": 1.0, "rejected": 0.0}
LABELS = {"true": 1, "1": 1, "false": 0, "0": 0}


@dataclass(frozen=True)
class Written:
    """A completion.

    Attributes:
        text, tokens: of the completion; the tokens with the end of it.
        label: 1 for a good one, or the better of two; 0 for the other.
    """

    text: str
    tokens: tuple[int, ...]
    label: float


@dataclass(frozen=True)
class Preference:
    """A prompt with its completions: the two of a pair, or all labelled ones of the same prompt."""

    prompt: Prompt
    completions: tuple[Written, ...]

    @property
    def decided(self) -> bool:
        """True if a good and a bad completion stand beside each other."""
        return len({written.label for written in self.completions}) > 1


def read_pairs(
    source: str | Path | Iterable[Mapping[str, Any]],
    spec: PromptSpec,
    *,
    seed: int = 0,
    log: Callable[[str], None] = lambda _: None,
) -> Source:
    """The rows of a file of pairs, checked; needs no policy.

    A row has a `prompt` (a text, or messages) and either `chosen` and `rejected`, or `completion` and `label` (true or
    false, 1 or 0). A completion is a text, or messages of which the last one is the assistant's; those before it, if
    there are any, are the prompt's.

    Raises:
        UsageError: data that cannot be read, or a row that is no such pair; the message says which and what it lacks.
    """
    found = read_source(source, replace(spec, answer_field=None), seed=seed, log=log)
    found = replace(found, where="pairs" if found.where == "data" else found.where)
    same = sum(len(texts) == 2 and texts[0] == texts[1] for texts in map(_texts, *_numbered(found)))
    if same:
        log(
            f"{found.where}: in {same} of {len(found.rows)} rows 'chosen' and 'rejected' are the same: they teach nothing"
        )
    return found


def load_pairs(
    source: Source, renderer: Renderer, spec: PromptSpec, finish: Callable[[Prompt, str], tuple[int, ...]]
) -> list[Preference]:
    """The prompts of a file of pairs with their completions.

    Every pair is one of its own, also where a prompt has several; single completions of a prompt belong together.

    Args:
        finish: (prompt, text of a completion) -> the completion's token ids behind the prompt, with the end.

    Raises:
        UsageError: a prompt that is none, or a completion that does not fit behind it; the message says which row.
    """
    template, spec = template_of(spec.template), replace(spec, max_new_tokens=0)
    pairs: dict[str, Preference] = {}
    together: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for row, where in zip(*_numbered(source), strict=True):
        prompt = make_prompt(row, renderer, spec, template, where)
        texts = _texts(row, where)
        labels = list(SIDES.values()) if len(texts) == 2 else [_label(row, where)]
        try:
            written = tuple(
                Written(text, finish(prompt, text), label) for text, label in zip(texts, labels, strict=True)
            )
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error
        longest = max(len(each.tokens) for each in written)
        if renderer.context_length is not None and len(prompt.tokens) + longest > renderer.context_length:
            raise UsageError(
                f"{where}: prompt and completion have {len(prompt.tokens) + longest} tokens together, which exceeds the "
                f"model's context of {renderer.context_length}: shorten them, or leave the row out"
            )
        # A pair says nothing about the completions of another one.
        key = together.get(prompt.id) if len(texts) == 1 else None
        if key is not None:
            pairs[key] = replace(pairs[key], completions=(*pairs[key].completions, *written))
            continue
        seen[prompt.id] += 1
        key = prompt.id if seen[prompt.id] == 1 else f"{prompt.id}-{seen[prompt.id]}"
        pairs[key] = Preference(replace(prompt, id=key), written)
        if len(texts) == 1:
            together[prompt.id] = key
    return list(pairs.values())


def _numbered(source: Source) -> tuple[list[Row], list[str]]:
    return source.rows, [f"{source.where}, {row.place}" for row in source.rows]


def _texts(row: Row, where: str) -> list[str]:
    """The completions of a row: of a pair the chosen one first."""
    held = ", ".join(row)
    if any(side in row for side in SIDES):
        for side in SIDES:
            if side not in row:
                raise UsageError(f"{where}: there is no column '{side}' (it has: {held}); {FORM}")
        return [written_text(row, side, where) for side in SIDES]
    if "completion" not in row:
        raise UsageError(f"{where}: there is no column 'chosen' (it has: {held}); {FORM}")
    if "label" not in row:
        raise UsageError(f"{where}: there is no column 'label' (it has: {held}); {FORM}")
    _label(row, where)
    return [written_text(row, "completion", where)]


def _label(row: Row, where: str) -> float:
    """1 or 0; a cell of a text file says it in words."""
    value = row["label"]
    value = LABELS.get(value.strip().lower(), value) if isinstance(value, str) else value
    if not isinstance(value, (bool, int, float)) or value not in (0, 1):
        raise UsageError(f"{where}: 'label' must be true or false (1 or 0), not {shown(row['label'])}")
    return float(value)


def written_text(row: Mapping[str, Any], column: str, where: str) -> str:
    """The completion in a column: a text, or what the last of its messages, the assistant's, says.

    Raises:
        UsageError: it is neither, or its other messages are not the prompt's.
    """
    value = row[column]
    if isinstance(value, str):
        return value
    refused = UsageError(
        f"{where}: '{column}' must be a text, or a list of messages that ends with the assistant's, not {shown(value)}"
    )
    if not is_chat(value):
        raise refused
    prompt = row.get("prompt")
    try:
        messages = messages_of(value)
        asked = (
            messages_of(prompt)
            if isinstance(prompt, list) and is_chat(prompt)
            else [{"role": "user", "content": prompt}]
        )
    except UsageError as error:
        raise UsageError(f"{where}, '{column}': {error}") from error
    if messages[-1]["role"] != "assistant":
        raise refused
    if messages[-1].get("tool_calls") or messages[-1].get("function_call"):
        raise UsageError(
            f"{where}: '{column}' ends with tool calls, and only text can be trained on: write them as a text"
        )
    before = [(message["role"], message["content"]) for message in messages[:-1]]
    if before and before != [(message["role"], message["content"]) for message in asked]:
        raise UsageError(
            f"{where}: '{column}' has messages before its last one that are not those of the prompt: leave them out"
        )
    return str(messages[-1]["content"])
