"""From rows to prompts: fields renamed, templates filled, text rendered, lengths checked."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cohort.data.load import load_rows
from cohort.data.messages import is_chat, messages_of, tools_of
from cohort.data.presets import apply_preset
from cohort.data.rows import Row
from cohort.errors import UsageError, shown
from cohort.types import Message, Prompt
from cohort.types.policy import Renderer

Tools = Sequence[Mapping[str, Any]]
# Characters that no token is longer than: runs of spaces come nearest.
LONGEST_TOKEN = 1024
# The prompt of a row that has none.
EMPTY = [{"role": "user", "content": ""}]
_FIELD = re.compile(r"\{(\w+)((?:\[\w+\])*)\}")
# Commands of TeX that begin with n.
_TEX = (
    "abla|atural|cong|e|earrow|eg|eq|ewcommand|ewline|exists|geq|gtr|i|icefrac|leq|less|mid|obreak|oindent|olimits|onumber|"
    "ormalsize|ot|otin|parallel|prec|sim|subseteq|succ|supseteq|u|Vdash|vdash|warrow"
)
_NEWLINE = re.compile(rf"(?<!\\)\\n(?!(?:{_TEX})(?![A-Za-z]))")


@dataclass(frozen=True)
class PromptSpec:
    """How rows become prompts.

    Attributes:
        prompt_field, answer_field: columns to use as `prompt` and `answer`; None takes those names, or a preset's.
        system: system message put before every prompt that has none.
        template: text with the row's fields in braces, `{question}` or `{metadata[expression]}`, or a file with such
            text; other braces stay as they are. A backslash and an n, as a shell passes them on, are a new line, also in
            `system`.
        max_new_tokens: what a completion may take of the context.
        by_row: rows with one text and different columns are different prompts, as where an environment reads the columns;
            a row without a prompt leaves that to its environment.
        tools: name of an environment -> schemas of what the policy may call in it; the name is empty where there is one.
    """

    prompt_field: str | None = None
    answer_field: str | None = None
    system: str | None = None
    template: str | None = None
    max_new_tokens: int = 0
    by_row: bool = False
    tools: Mapping[str, Tools] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """Rows that were read, and what to call them in messages."""

    rows: list[Row]
    where: str


def read_source(
    source: str | Path | Iterable[Mapping[str, Any]],
    spec: PromptSpec,
    *,
    seed: int = 0,
    log: Callable[[str], None] = lambda _: None,
) -> Source:
    """The rows of a data set with their `prompt` and `answer` columns named; needs no policy.

    Raises:
        UsageError: data that cannot be read, or rows without a prompt.
    """
    where = str(source) if isinstance(source, (str, Path)) else "data"
    return Source(_named(load_rows(source, seed=seed), spec, where, log), where)


def load_prompts(
    source: str | Path | Source | Iterable[Mapping[str, Any]],
    renderer: Renderer,
    spec: PromptSpec,
    *,
    seed: int = 0,
    log: Callable[[str], None] = lambda _: None,
) -> list[Prompt]:
    """The prompts of a data set, each once.

    Raises:
        UsageError: rows without a prompt, or longer than the policy's context; the message says which row.
    """
    if not isinstance(source, Source):
        source = read_source(source, spec, seed=seed, log=log)
    template = template_of(spec.template)
    prompts: dict[str, Prompt] = {}
    for row in source.rows:
        prompt = make_prompt(row, renderer, spec, template, f"{source.where}, {row.place}")
        prompts.setdefault(prompt.id, prompt)
    first = next((prompt for prompt in prompts.values() if prompt.tools), None)
    if first is not None and renderer.prompt(first.source, spec.system)[0] == first.text:
        log(f"{source.where}: the model's chat template shows no tools: the column 'tools' is no part of the prompts")
    # A procedural task repeats itself by nature; in a file it is worth knowing.
    repeated = len(source.rows) - len(prompts)
    if repeated and not source.where.startswith("reasoning_gym:"):
        log(f"{source.where}: {repeated} of {len(source.rows)} rows repeat a prompt and were left out")
    return list(prompts.values())


def _named(rows: list[Row], spec: PromptSpec, where: str, log: Callable[[str], None]) -> list[Row]:
    if spec.prompt_field is None and spec.answer_field is None:
        rows, preset = apply_preset(rows)
        if preset:
            log(f"{where}: read as {preset}")
    out = []
    for row in rows:
        row, at = row.replace({}), f"{where}, {row.place}"
        for name, source in (("prompt", spec.prompt_field), ("answer", spec.answer_field)):
            if source is not None:
                if source not in row:
                    raise UsageError(f"{at}: there is no column '{source}' (--{name}-field); it has {', '.join(row)}")
                row[name] = row[source]
        if "prompt" not in row and spec.template is None and not spec.by_row:
            raise UsageError(
                f"{at}: there is no column 'prompt' (it has: {', '.join(row)}); name the one to use with "
                "--prompt-field, or fill a text with --template"
            )
        out.append(row)
    return out


def template_of(text: str | None) -> str | None:
    """The text of a template, from its file if it names one.

    Raises:
        UsageError: the file cannot be read as text.
    """
    if text is None:
        return None
    path = Path(text)
    try:
        named = path.is_file()
    except OSError:  # too long for a name
        named = False
    if not named:
        return typed(text)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"--template: {path} is no text in UTF-8 ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise UsageError(f"--template: {path} cannot be read: {error.strerror}") from error


def typed(text: str) -> str:
    r"""A text as it was meant by who typed it into a shell: `\n` is a new line, `\nabla` stays, and so does `\\n`."""
    return _NEWLINE.sub("\n", text)


def fields_of(template: str) -> list[str]:
    """Names in braces that a template would put in, each once."""
    return list(dict.fromkeys(match[1] for match in _FIELD.finditer(template)))


def fill(template: str, row: Row, where: str = "row") -> str:
    """The template with the row's fields put in.

    Raises:
        UsageError: it uses no field of the row, or an entry that the row does not have.
    """
    used = 0

    def field(match: re.Match[str]) -> str:
        nonlocal used
        name, path = match[1], match[2]
        if name not in row:
            return match[0]
        used += 1
        value = row[name]
        for key in re.findall(r"\[(\w+)\]", path):
            try:
                value = value[int(key)] if isinstance(value, list) else value[key]
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise UsageError(f"{where}: the template asks for {match[0]}, which the row does not have") from error
        return str(value)

    text = _FIELD.sub(field, template)
    if not used:
        raise UsageError(f"{where}: the template uses none of the row's fields ({', '.join(row)}): {template!r}")
    return text


def source_of(row: Row, template: str | None, where: str) -> str | list[Message]:
    """What a row asks: its template filled, its text, or its messages.

    Raises:
        UsageError: it is neither a text nor messages of text.
    """
    # What an environment shows may be all that there is.
    source: Any = fill(template, row, where) if template is not None else row.get("prompt", EMPTY)
    if isinstance(source, str):
        return source
    if not is_chat(source):
        raise UsageError(
            f"{where}: the prompt must be a text or a list of messages with role and content, not {shown(source)}"
        )
    try:
        return messages_of(source)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def check_source(source: Source, spec: PromptSpec) -> None:
    """Every row has a prompt, as far as that can be said without a policy.

    Raises:
        UsageError: a row has none; the message says which.
    """
    template = template_of(spec.template)
    for row in source.rows:
        source_of(row, template, f"{source.where}, {row.place}")


def make_prompt(row: Row, renderer: Renderer, spec: PromptSpec, template: str | None, where: str) -> Prompt:
    """The prompt of a row.

    Args:
        template: its text (see `template_of`).
        where: what to call the row in messages.

    Raises:
        UsageError: a prompt that is none, is empty, is longer than the policy's context, or that the policy cannot read.
    """
    source = source_of(row, template, where)
    if not isinstance(source, str) and spec.system and source[0]["role"] != "system":
        source = [{"role": "system", "content": spec.system}, *source]
    tools: Tools = () if isinstance(source, str) else tools_of(row)
    if spec.tools:
        named = "" if "" in spec.tools else str(row.get("environment") or "")
        if named not in spec.tools:
            there = ", ".join(spec.tools)
            raise UsageError(f"{where}: the column 'environment' names one of {there}, but holds {shown(named)}")
        tools = spec.tools[named]
    size = len(source) if isinstance(source, str) else sum(len(str(message.get("content") or "")) for message in source)
    if renderer.context_length is not None and size > (most := renderer.context_length * LONGEST_TOKEN):
        raise UsageError(
            f"{where}: the prompt has {size} characters, of which the model's context of {renderer.context_length} tokens "
            f"holds {most} at the very most: shorten it"
        )
    try:
        shown_as = renderer.offer(source, spec.system, tools) if spec.by_row else (source, spec.system, tools)
        text, tokens = renderer.prompt(*shown_as)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
    if not tokens:
        raise UsageError(f"{where}: the prompt is empty")
    if renderer.context_length is not None and len(tokens) + spec.max_new_tokens > renderer.context_length:
        raise UsageError(
            f"{where}: the prompt has {len(tokens)} tokens, which with max_new_tokens={spec.max_new_tokens} exceeds the "
            f"model's context of {renderer.context_length}: shorten it, or lower max_new_tokens"
            + (f" to at most {room}" if (room := renderer.context_length - len(tokens)) > 0 else "")
        )
    known_by = text + json.dumps(row, default=lambda value: type(value).__name__) if spec.by_row else text
    return Prompt(prompt_id(known_by), text, tokens, source, row, tuple(tools), where)


def prompt_id(text: str) -> str:
    """Identity of a prompt, of what it is known by: its rendered text, or that and its row."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def overlap(first: Iterable[Prompt], second: Iterable[Prompt]) -> int:
    """Number of prompts that stand in both."""
    return len({p.id for p in first} & {p.id for p in second})
