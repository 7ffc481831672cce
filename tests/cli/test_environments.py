"""`cohort environments`."""

from __future__ import annotations

import json

from tests.cli.command import run


def test_all_kinds_are_listed_with_how_to_install_them_and_an_example() -> None:
    _, shown, _ = run("environments")
    for form in ("FILE.py:CLASS", "gymnasium:ID", "textarena:ID", "textworld:FILES", "openenv:URL", "verifiers:ID"):
        assert form in shown
    rows = {row["environment"]: row for row in json.loads(run("environments", "--json")[1])}
    assert rows["reasoning_gym:TASK"]["installed"]
    assert rows["reasoning_gym:TASK"]["install"] is None
    for row in rows.values():
        assert row["example"].startswith("cohort train grpo --environment '")
        # What is missing says how it is installed, brackets and all.
        assert row["install"] is None or row["install"].endswith(f"'cohort-rl[{row['environment'].split(':')[0]}]'")
        assert (row["install"] or "") in shown


def test_ids_of_one_kind_are_listed() -> None:
    assert "chain_sum" in run("environments", "reasoning_gym")[1].splitlines()
    status, _, err = run("environments", "nobody")
    assert status == 2
    assert "there is no adapter 'nobody'" in err
