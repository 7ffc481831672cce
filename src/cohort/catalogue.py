"""The table of all methods, without importing them: a list is no reason to wait for torch.

`recipes/index.json` holds a row for every recipe beside the hash of its file (`python docs/generate.py` renews it). A recipe
that is new, or was changed, is imported and asked.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

HERE = Path(__file__).parent / "recipes"
INDEX = HERE / "index.json"


def overview() -> list[dict[str, str]]:
    """Name, paper, axes, confidence, idea and what it requires, of every method."""
    known = json.loads(INDEX.read_text(encoding="utf-8")) if INDEX.is_file() else {}
    rows = []
    for name, path in _recipes().items():
        entry = known.get(name, {})
        if entry.get("sha256") == _hash(path):
            rows.append({"name": name, **entry["row"]})
        else:
            rows.append(_asked(name))
    return rows


def index() -> str:
    """What the index is to hold."""
    entries = {}
    for name, path in _recipes().items():
        row = _asked(name)
        del row["name"]
        entries[name] = {"sha256": _hash(path), "row": row}
    return json.dumps(entries, indent=1, ensure_ascii=False) + "\n"


def _recipes() -> dict[str, Path]:
    """Method -> its file."""
    files = sorted(HERE.glob("*.py"))
    return {path.stem.replace("_", "-"): path for path in files if path.stem not in ("__init__", "recipe")}


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _asked(name: str) -> dict[str, str]:
    from cohort import registry
    from cohort.methods import AXES

    recipe = registry.recipe(name)
    made = recipe()
    return {
        "name": name,
        "paper": recipe.paper,
        "axes": ", ".join(axis for axis in AXES if getattr(made, axis)) or "its rewards",
        "confidence": recipe.confidence.split(":")[0],
        "idea": recipe.idea,
        "requires": made.requires,
    }
