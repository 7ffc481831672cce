"""What commands say beside what they do."""

from __future__ import annotations

import sys

import pytest

from cohort.cli import main


class Stop(Exception):
    """Where the run would begin."""


@pytest.mark.parametrize("words", [["--model", "nursery"], ["--set", "policy.model=nursery"]])
@pytest.mark.parametrize("quiet", [True, False])
def test_a_model_is_taken_by_the_name_that_it_had_and_says_its_own(monkeypatch, capsys, words, quiet):
    taken = []

    def begin(config, **_):
        taken.append(config)
        raise Stop

    monkeypatch.setattr("cohort.distributed.run.run", begin)
    monkeypatch.setattr(sys, "argv", ["cohort", "train", "grpo", *words, *(["--quiet"] if quiet else [])])
    with pytest.raises(Stop):
        main()
    assert taken[0].policy.model == "toy"
    assert capsys.readouterr().err == ("" if quiet else "cohort: the model nursery is called toy now\n")


def test_names_with_colons_are_said_as_they_are(capfd):
    from cohort.cli.console import log

    log("tools own.py:x: there is no function 'x'")
    assert capfd.readouterr().err == "tools own.py:x: there is no function 'x'\n"
