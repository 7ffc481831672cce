"""Every case of every vector file, through the code that training uses."""

from __future__ import annotations

import os

import pytest

from cohort import registry
from tests.golden.runner import VECTORS, load, run_case

# They are no methods but ways of computing the same.
EXECUTION = ("prefix-grouper", "streambp")
FILES = {path.stem: path for path in sorted(VECTORS.glob("*.json"))}
HAVE = [slug for slug in FILES if slug in registry.names() or slug in EXECUTION]
MISSING = [slug for slug in FILES if slug not in HAVE]
CASES = [(slug, i, case["name"]) for slug in HAVE for i, case in enumerate(load(FILES[slug])["cases"])]


def test_there_are_vectors() -> None:
    assert FILES, f"no vector files in {VECTORS}"


@pytest.mark.parametrize(("slug", "index"), [pytest.param(s, i, id=f"{s}-{name}") for s, i, name in CASES])
def test_case(slug: str, index: int, record_property: pytest.RecordProperty) -> None:
    record_property("golden", slug)
    run_case(slug, load(FILES[slug])["cases"][index])


@pytest.mark.parametrize("slug", MISSING)
def test_method_exists(slug: str, record_property: pytest.RecordProperty) -> None:
    record_property("golden-missing", slug)
    if os.environ.get("COHORT_GOLDEN_ALL") == "1":
        pytest.fail(f"there are vectors for '{slug}', but no such method")
