"""A folder through which runs exchange groups of rollouts as texts: a mounted one, or an object store that fsspec knows.

What stands there was written by others, so that nothing of it is trusted: names, sizes and types are checked, and what is
not as it must be is refused with the reason.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cohort.errors import UsageError, shown
from cohort.types import Message

# Bytes of a file, files that are looked at, groups of a file, answers of a group, bytes of a question with its columns.
LARGEST, FILES, GROUPS, ANSWERS, QUESTION = 16_000_000, 256, 64, 256, 100_000
_NAME = re.compile(r"([0-9a-f]{12})\.([0-9]{6,12})\.([0-9a-f]{16})\.json")


@dataclass(frozen=True)
class SharedGroup:
    """Answers to one question, as texts.

    Attributes:
        question: what was asked: a text, or messages.
        columns: of the question's row, which rewards may read.
        answers: as texts, without what ends them.
        ended: whether each ended by itself.
    """

    question: str | list[Message]
    answers: tuple[str, ...]
    ended: tuple[bool, ...]
    columns: Mapping[str, Any] = field(default_factory=dict)


def packed(groups: Sequence[SharedGroup]) -> bytes:
    """Groups as the bytes of a file; columns that JSON has no form for are left out."""
    rows = [
        {
            "question": group.question,
            "columns": {name: value for name, value in group.columns.items() if _plain(value)},
            "answers": list(group.answers),
            "ended": list(group.ended),
        }
        for group in groups[:GROUPS]
    ]
    return json.dumps({"format": 1, "groups": rows}, ensure_ascii=True).encode()


def unpacked(data: bytes, *, longest: int) -> list[SharedGroup]:
    """The groups of a file.

    Args:
        longest: most characters of an answer.

    Raises:
        ValueError: it is not what `packed` gives; the message says in what.
    """
    try:
        held = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON ({type(error).__name__})") from error
    if not isinstance(held, dict) or held.get("format") != 1 or not isinstance(held.get("groups"), list):
        raise ValueError("it is no file of shared groups of format 1")
    if len(held["groups"]) > GROUPS:
        raise ValueError(f"it has {len(held['groups'])} groups, of at most {GROUPS}")
    return [_group(each, longest) for each in held["groups"]]


def _group(held: Any, longest: int) -> SharedGroup:
    if not isinstance(held, dict):
        raise ValueError("a group is no mapping")
    columns, answers = held.get("columns", {}), held.get("answers")
    question: Any = held.get("question")
    ended = held.get("ended", [True] * len(answers) if isinstance(answers, list) else None)
    chat = isinstance(question, list) and question and all(_is_message(each) for each in question)
    if not (isinstance(question, str) or chat):
        raise ValueError("a question is neither a text nor messages of role and content")
    if not isinstance(columns, dict) or len(json.dumps([question, columns])) > QUESTION:
        raise ValueError(f"a question's columns are no mapping, or larger than {QUESTION} bytes")
    if not isinstance(answers, list) or not 0 < len(answers) <= ANSWERS:
        raise ValueError(f"a group has no list of 1 to {ANSWERS} answers")
    if not all(isinstance(answer, str) and len(answer) <= longest for answer in answers):
        raise ValueError(f"an answer is no text of at most {longest} characters")
    if not isinstance(ended, list) or len(ended) != len(answers) or not all(isinstance(each, bool) for each in ended):
        raise ValueError("it is not said of each answer whether it ended")
    return SharedGroup(question, tuple(answers), tuple(ended), columns)


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"role", "content"}
        and all(isinstance(v, str) for v in value.values())
    )


def _plain(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


class Exchange:
    """The folder.

    Args:
        place: a path, or an address that fsspec knows (s3://bucket/folder, ...).

    Raises:
        UsageError: fsspec knows no such place, or lacks a package for it; the path is a file's.
    """

    def __init__(self, place: str) -> None:
        from fsspec.core import url_to_fs

        try:
            self.files, self.root = url_to_fs(place)
        except (ValueError, ImportError) as error:
            raise UsageError(f"share_folder {shown(place)}: {error}") from error
        if "://" not in place and os.path.exists(place) and not os.path.isdir(place):
            raise UsageError(f"share_folder {shown(place)} is a file: name a folder, which need not be there yet")

    def write(self, node: str, step: int, data: bytes) -> str:
        """Put a node's groups of a step there, whole or not at all, and take away what it put there before; the file's name.

        Raises:
            OSError: it cannot be written.
        """
        name = f"{node}.{step:06d}.{hashlib.sha256(data).hexdigest()[:16]}.json"
        self.files.makedirs(self.root, exist_ok=True)
        aside = f"{self.root}/.{name}.part"
        with self.files.open(aside, "wb") as file:
            file.write(data)
        self.files.mv(aside, f"{self.root}/{name}")
        for old in self._listed():
            if old.startswith(f"{node}.") and old != name:
                self.files.rm_file(f"{self.root}/{old}")
        return name

    def newest(self, own: str) -> dict[str, str]:
        """node -> name of its newest file, of the nodes other than `own`.

        Raises:
            OSError: it cannot be listed.
        """
        found: dict[str, str] = {}
        for name in self._listed():
            match = _NAME.fullmatch(name)
            if match is not None and match[1] != own:
                found[match[1]] = max(found.get(match[1], ""), name)
        return dict(sorted(found.items(), key=lambda each: each[1].rsplit(".", 2)[1])[:FILES])

    def read(self, name: str) -> bytes:
        """A file.

        Raises:
            ValueError: it is no plain file, too large, or not what its name says.
            OSError: it cannot be read.
        """
        path = f"{self.root}/{name}"
        about = self.files.info(path)
        if about.get("type") != "file" or about.get("islink"):
            raise ValueError("it is no plain file")
        with self.files.open(path, "rb") as file:
            data: bytes = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ValueError(f"it has more than {LARGEST / 1e6:.0f} MB")
        if hashlib.sha256(data).hexdigest()[:16] != name.rsplit(".", 2)[1]:
            raise ValueError("it does not have the checksum that its name says: it was cut or changed")
        return data

    def _listed(self) -> list[str]:
        self.files.invalidate_cache(self.root)
        try:
            found = self.files.ls(self.root, detail=False)
        except FileNotFoundError:
            return []
        return sorted(str(path).rstrip("/").rsplit("/", 1)[-1] for path in found)
