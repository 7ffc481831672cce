"""Checkpoints that survive a kill at any moment: written aside, checked, then renamed into place."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

MANIFEST = "manifest.json"


def folder_of(root: Path, step: int) -> Path:
    """Where the checkpoint of a step stands."""
    return root / f"step-{step:06d}"


def sync(path: Path) -> None:
    """Have a file or folder reach the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, write: Callable[[Path], object], *, durable: bool = True) -> None:
    """Write a file under a temporary name and rename it into place.

    Args:
        durable: wait until it has reached the disk, so that a power cut does not leave it empty; a kill never does.
    """
    aside = path.with_name(f".{path.name}.tmp")
    write(aside)
    if durable:
        sync(aside)
    aside.replace(path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(root: Path, step: int, save_model: Callable[[Path], None], state: dict[str, Any], *, keep: int) -> Path:
    """Write the checkpoint of a step and remove all but the newest `keep`.

    Args:
        root: folder of the checkpoints.
        save_model: writes the model into the folder it is given.
        state: tensors, numbers, texts and containers of them.
    """
    root.mkdir(parents=True, exist_ok=True)
    final = folder_of(root, step)
    aside = root / f".tmp-{final.name}"
    if aside.exists():
        shutil.rmtree(aside)
    aside.mkdir()
    save_model(aside / "model")
    torch.save(state, aside / "state.pt")
    files = sorted(p for p in aside.rglob("*") if p.is_file())
    manifest = {str(p.relative_to(aside)): {"sha256": _digest(p), "bytes": p.stat().st_size} for p in files}
    (aside / MANIFEST).write_text(json.dumps({"step": step, "files": manifest}, indent=1))
    for path in [*files, aside / MANIFEST, *(p for p in aside.rglob("*") if p.is_dir()), aside]:
        sync(path)
    if final.exists():
        shutil.rmtree(final)
    aside.rename(final)
    sync(root)
    for old in sorted(root.glob("step-*"))[:-keep]:
        shutil.rmtree(old)
    return final


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint; None if it is whole."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())["files"]
    except (OSError, ValueError, KeyError):
        return f"{MANIFEST} is missing or malformed"
    for name, expected in manifest.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"]:
            return f"{name} has {path.stat().st_size} bytes, not {expected['bytes']}"
        if _digest(path) != expected["sha256"]:
            return f"{name} does not have the checksum it was written with"
    return None


def newest(root: Path, say: Callable[[str], None] = lambda _: None) -> Path | None:
    """The newest whole checkpoint; damaged ones are named. None if there is none."""
    for folder in sorted(root.glob("step-*"), reverse=True):
        wrong = damage(folder)
        if wrong is None:
            return folder
        say(f"checkpoint {folder} is damaged ({wrong}) and is not used")
    return None


def read_state(folder: Path) -> dict[str, Any]:
    """The state that was written; tensors on the CPU."""
    state: dict[str, Any] = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    return state
