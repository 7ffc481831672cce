"""Any command line is refused in one message, or says what it says: nothing ends in a traceback, nothing is changed."""

from __future__ import annotations

import contextlib
import io
import string
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cohort.cli import main
from cohort.training.config import FIELDS, TrainConfig, from_file, make_config
from cohort.training.values import Option

OPTIONS = sorted(key for key, info in FIELDS.items() if any(isinstance(mark, Option) for mark in info.metadata))
TEXTS = {
    key
    for key in OPTIONS
    if type(TrainConfig().plain()[key]) in (str, type(None))
    and key not in ("micro_tokens", "accuracy", "max_turns", "turn_tokens", "episode_seconds", "environment_processes")
}
ODD = ["0", "1", "-1", "5", "1e3", "0.5", "nan", "inf", "-inf", "1e999", "9" * 30, "9" * 5000]
ODD += ["true", "null", "", " ", "-", "--", "é", "\udcff"]
values = st.text(string.printable, max_size=12) | st.sampled_from(ODD)


class Stop(Exception):
    """Where the run would begin."""


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(OPTIONS), values), max_size=3, unique_by=lambda pair: pair[0]))
def test_a_command_line_is_taken_at_its_word_or_refused(monkeypatch, tmp_path, given_options):
    taken = []

    def begin(config, *_, **__):
        taken.append(config)
        raise Stop

    monkeypatch.setattr("cohort.distributed.run.run", begin)
    monkeypatch.setattr("cohort.distributed.launch.launch", begin)
    words = [word for key, value in given_options for word in (f"--{key.replace('_', '-')}={value}",)]
    monkeypatch.setattr(sys, "argv", ["cohort", "train", "grpo", *words])
    err = io.StringIO()
    status = 0
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as stop:
            status = stop.code
        except Stop:
            pass
    if not taken:
        assert status == 2, err.getvalue()
        assert any(key.replace("_", "-") in err.getvalue() for key, _ in given_options)
        assert len(err.getvalue()) < 2000
        return
    plain = taken[0].plain()
    for key, value in given_options:
        if key in TEXTS:
            assert plain[key] == value
    taken[0].save(tmp_path / "config.yaml")
    assert make_config(from_file(tmp_path / "config.yaml")).plain() == plain


@pytest.mark.parametrize(
    "command", [["--samples", "-1"], ["--target", "nan"], ["--seeds", "9" * 20], ["--tokens", "x"]]
)
def test_numbers_of_a_comparison_are_bounded(monkeypatch, command):
    monkeypatch.setattr(sys, "argv", ["cohort", "compare", "grpo", "dapo", *command])
    err = io.StringIO()
    with contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert command[0] in err.getvalue()
