"""Imports go one way: a part imports what lies below it, and nothing else."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import cohort

SOURCE = Path(cohort.__file__).parent
# Part -> the parts right below it. What lies below these lies below it too.
BELOW = {
    "files": "errors",
    "types": "errors devices",
    "reductions": "types",
    "signals": "reductions",
    "axes": "signals seeds",
    "methods": "axes",
    "recipes": "methods seeds",
    "registry": "recipes",
    "catalogue": "registry",
    "explain": "registry",
    "policies": "types files cache quiet lifeline seeds",
    "engine": "policies",
    "data": "signals files cache quiet lifeline seeds",
    "rewards": "data policies",
    "environments": "rewards",
    "rollouts": "environments engine methods",
    "analysis": "rollouts registry",
    "training": "analysis",
    "distributed": "training",
    "doctor": "training",
    "viewer": "doctor",
    "experiments": "viewer",
    "api": "experiments distributed",
    "cli": "api catalogue explain",
    "__main__": "cli",
}


def below(part: str) -> set[str]:
    direct = BELOW.get(part, "").split()
    return {*direct}.union(*map(below, direct))


@cache
def modules() -> dict[str, ast.Module]:
    """Name -> code of every module; but of `cohort` itself, which looks up its names when they are asked for."""
    paths = (path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")
    named = {".".join(("cohort", *path.relative_to(SOURCE).with_suffix("").parts)): path for path in paths}
    return {name.removesuffix(".__init__"): ast.parse(path.read_text()) for name, path in named.items()}


def imported(nodes: Iterable[ast.AST]) -> set[str]:
    """What is imported of cohort: of `from a import b` both a and a.b, which may be a module."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "modules are imported by their full names"
            found |= {node.module, *(f"{node.module}.{each.name}" for each in node.names)}
    return {name for name in found if name.startswith("cohort.")}


def test_no_import_runs_up() -> None:
    up = []
    for name, tree in modules().items():
        part = name.split(".")[1]
        for found in imported(ast.walk(tree)):
            other = found.split(".")[1]
            if other != part and other not in below(part):
                up.append(f"{name} imports {found}")
    assert not up


def test_no_circle() -> None:
    """Neither of parts nor, when they are imported, of modules; `prepare` raises CycleError, which names it."""
    TopologicalSorter({part: direct.split() for part, direct in BELOW.items()}).prepare()
    found = {name: imported(tree.body) & {*modules()} - {name} for name, tree in modules().items()}
    TopologicalSorter(found).prepare()


def test_no_recipe_imports_another() -> None:
    recipes = {name: tree for name, tree in modules().items() if name.startswith("cohort.recipes.")}
    others = {*recipes} - {"cohort.recipes.recipe"}
    assert not {name: both for name, tree in recipes.items() if (both := imported(ast.walk(tree)) & others - {name})}
