"""Checkpoints that survive a kill at any moment: written aside, checked, then renamed into place.

A checkpoint is known by its exact name and by its manifest, so that a copy which somebody made of one is neither read
nor removed.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch

from cohort.files import digest, free_name, sync

MANIFEST = "manifest.json"
STATE = "state.pt"
SaveModel = Callable[[Path], Future[Any] | None]
_ASIDE = re.compile(r"\.tmp-step-[0-9]{6,}")


def folder_of(root: Path, step: int) -> Path:
    """Where the checkpoint of a step stands."""
    return root / f"step-{step:06d}"


def step_of(folder: Path) -> int | None:
    """The step whose checkpoint the folder is by its name; None for any other name."""
    match = re.fullmatch(r"step-([0-9]{6,})", folder.name)
    step = int(match[1]) if match else None
    return step if step is not None and folder_of(folder.parent, step) == folder else None


def listed(root: Path) -> list[Path]:
    """Folders with the name of a checkpoint, from the earliest step to the latest."""
    steps = {step: path for path in root.glob("step-*") if (step := step_of(path)) is not None and path.is_dir()}
    return [steps[step] for step in sorted(steps)]


def write(root: Path, step: int, save_model: SaveModel, state: dict[str, Any], *, keep: int) -> Path:
    """Write a checkpoint and wait until it is whole; see `begin`."""
    return begin(root, step, save_model, state, keep=keep).result()


def begin(root: Path, step: int, save_model: SaveModel, state: dict[str, Any], *, keep: int) -> Future[Path]:
    """Begin to write the checkpoint of a step, unless it stands there whole; then remove all but the newest `keep`.

    Only one may be written at a time.

    Args:
        root: folder of the checkpoints.
        save_model: writes the model into the folder it is given, or gives what is done when that is written.
        state: tensors, numbers, texts and containers of them; written before this returns.

    Returns:
        the checkpoint, when it is whole and in its place.
    """
    root.mkdir(parents=True, exist_ok=True)
    final = folder_of(root, step)
    whole: Future[Path] = Future()
    if final.exists() and damage(final) is None:
        whole.set_result(final)
        return whole
    for left in root.glob(".tmp-step-*"):
        if _ASIDE.fullmatch(left.name):
            shutil.rmtree(left)
    aside = root / f".tmp-{final.name}"
    aside.mkdir()
    torch.save(state, aside / STATE)
    model = save_model(aside / "model")
    if not isinstance(model, Future):
        whole.set_result(_complete(aside, final, step, keep))
        return whole

    def complete(model: Future[Any]) -> None:
        try:
            model.result()
            whole.set_result(_complete(aside, final, step, keep))
        except BaseException as error:
            whole.set_exception(error)

    model.add_done_callback(complete)
    return whole


def _complete(aside: Path, final: Path, step: int, keep: int) -> Path:
    """Put a checkpoint, all of which is written aside, into its place."""
    root = final.parent
    files = sorted(p for p in aside.rglob("*") if p.is_file())
    manifest = {str(p.relative_to(aside)): {"sha256": digest(p), "bytes": p.stat().st_size} for p in files}
    (aside / MANIFEST).write_text(json.dumps({"step": step, "files": manifest}, indent=1))
    for path in [*files, aside / MANIFEST, *(p for p in aside.rglob("*") if p.is_dir()), aside]:
        sync(path)
    if final.exists():
        final.rename(free_name(root, f"{final.name}-damaged"))
    aside.rename(final)
    sync(root)
    own = [path for path in listed(root) if (step_of(path) or 0) <= step and _manifest(path) is not None]
    for old in own[:-keep]:
        # One that somebody made read-only is meant to stay, and one behind a link stands with somebody's own files.
        if not old.is_symlink():
            with contextlib.suppress(OSError):
                _remove(old)
    return final


def _manifest(folder: Path) -> Mapping[str, Any] | None:
    """What the manifest of a checkpoint lists: file -> sha256 and bytes; None if it is none of this folder's step."""
    try:
        held = json.loads((folder / MANIFEST).read_bytes())
        files = held["files"]
        whole = held["step"] == step_of(folder) and STATE in files and all(_inside(name) for name in files)
        return files if whole and all({"sha256", "bytes"} <= set(each) for each in files.values()) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _inside(name: str) -> bool:
    """True of a path that leads to nothing above the folder it is taken from."""
    return not Path(name).is_absolute() and ".." not in Path(name).parts


def _remove(folder: Path) -> None:
    """Remove a checkpoint's own files. The manifest goes last: what a kill leaves is known again by it."""
    whole = folder.resolve()
    for name in _manifest(folder) or ():
        path = folder / name
        if path.parent.resolve().is_relative_to(whole):  # not through a link that somebody put there
            path.unlink(missing_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    for path in sorted((p for p in [folder, *folder.rglob("*")] if p.is_dir() and not p.is_symlink()), reverse=True):
        if not any(path.iterdir()):
            path.rmdir()


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint; None if it is whole."""
    manifest = _manifest(folder)
    if manifest is None:
        return f"{MANIFEST} is missing, malformed or of another step"
    for name, expected in manifest.items():
        path = folder / name
        try:
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != expected["bytes"]:
                return f"{name} has {path.stat().st_size} bytes, not {expected['bytes']}"
            if digest(path) != expected["sha256"]:
                return f"{name} does not have the checksum it was written with"
        except (OSError, ValueError) as error:
            return f"{name} cannot be read: {error}"
    return None


def newest(root: Path, log: Callable[[str], None] = lambda _: None) -> Path | None:
    """The newest whole checkpoint; damaged ones are named. None if there is none."""
    for folder in reversed(listed(root)):
        wrong = damage(folder)
        if wrong is None:
            return folder
        log(f"checkpoint {folder} is damaged ({wrong}) and is not used")
    return None


def read_state(folder: Path) -> dict[str, Any]:
    """The state that was written; tensors on the CPU."""
    state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    return state
