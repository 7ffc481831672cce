"""What `cohort environments` lists, and what an adapter says whose package is not there."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import pytest

from cohort.environments.adapters.known import KNOWN, ids
from cohort.environments.spec import ADAPTERS, parse
from cohort.errors import UsageError


def test_every_adapter_is_listed_with_an_example_that_can_be_named() -> None:
    assert {each.name for each in KNOWN} == {*ADAPTERS}
    for each in KNOWN:
        assert parse(each.example).text == each.example


@pytest.mark.parametrize("name", sorted({*ADAPTERS} - {"reasoning_gym"}))
def test_without_its_package_an_adapter_says_how_to_install_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # None stands for a module that cannot be found.
    for module in [name, *(loaded for loaded in sys.modules if loaded.startswith(f"{name}."))]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"{name} .*pip install 'cohort-rl\[{name}\]'"):
        parse(f"{name}:anything").load()


def test_ids_are_those_of_the_package() -> None:
    assert "chain_sum" in ids("reasoning_gym")
    for name, expected in {"openenv": "no list", "nobody": "there are reasoning_gym, gymnasium"}.items():
        with pytest.raises(UsageError, match=expected):
            ids(name)


def test_options_reach_the_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    from cohort.environments.adapters import reasoning_gym

    seen: list[tuple[str, Mapping[str, Any]]] = []
    monkeypatch.setattr(reasoning_gym, "load", lambda name, options: seen.append((name, options)))
    parse("reasoning_gym:chain_sum?size=3&partial=true&note=a+b").load()
    assert seen == [("chain_sum", {"size": 3, "partial": True, "note": "a+b"})]
