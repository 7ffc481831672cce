"""Writing rows and their pictures, so that an older file is replaced only when that is asked for, and never by half."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from cohort.data.generators.drawing import check_pillow
from cohort.data.generators.task import Form, Task
from cohort.errors import UsageError
from cohort.files import write_atomically

if TYPE_CHECKING:
    from PIL.Image import Image

_NAMED = re.compile(r"[0-9a-f]{24}\.png")


def pictures_of(out: Path) -> Path:
    """The folder of a file's pictures, beside it."""
    return out.with_name(f"{out.stem}_images")


def check_out(out: Path, *, replace: bool) -> None:
    """Raises:
    UsageError: no file can be written there, or one stands there and is not to be replaced.
    """
    if out.suffix != ".jsonl":
        raise UsageError(f"--out {out}: the rows are written as JSON, a line each: name a file .jsonl")
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise UsageError(f"--out {out}: name a file in a folder that exists")
    if out.exists() and not replace:
        raise UsageError(f"--out {out}: the file exists: name another one, or add --replace to have it replaced")


def write(out: Path, tasks: Iterable[Task], form: Form, *, replace: bool = False) -> int:
    """Write a row a task, and its pictures where the form has them.

    Pictures are named by their content, so that those of a file that is being replaced stay until it is.

    Returns:
        The number of rows.

    Raises:
        UsageError: see `check_out`; pillow is missing; or the tasks have no pictures.
    """
    check_out(out, replace=replace)
    folder = pictures_of(out)
    if form != "text":
        check_pillow(f"--form {form}")
        folder.mkdir(exist_ok=True)
    lines: list[str] = []
    drawn: set[str] = set()
    for task in tasks:
        names = [] if form == "text" else [_keep(picture(), folder) for picture in task.pictures]
        drawn.update(names)
        row = task.row(form, [f"{folder.name}/{name}" for name in names])
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_atomically(out, lambda aside: aside.write_text("".join(lines), encoding="utf-8"))
    if replace and folder.is_dir():
        for path in folder.iterdir():
            if _NAMED.fullmatch(path.name) and path.name not in drawn:
                path.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()
    return len(lines)


def _keep(picture: Image, folder: Path) -> str:
    """The name under which a picture is in the folder then."""
    data = io.BytesIO()
    picture.save(data, "PNG")
    name = f"{hashlib.sha256(data.getvalue()).hexdigest()[:24]}.png"
    if not (folder / name).exists():
        write_atomically(folder / name, lambda aside: aside.write_bytes(data.getvalue()), durable=False)
    return name
