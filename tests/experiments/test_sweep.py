"""Settings of a method, compared like methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cohort.errors import UsageError
from cohort.experiments import queue
from cohort.experiments.sweep import arms_of, parse_axis, sweep
from tests.experiments.made import QUIET, refused, stub


def test_a_grid_takes_every_combination_of_hyperparameters_and_keys() -> None:
    arms = arms_of("grpo", [parse_axis("group_size=4,8"), parse_axis("kl_beta=0,1e-2")], None)
    assert [(a.name, a.method, dict(a.config)) for a in arms] == [
        ("group_size=4 kl_beta=0", "grpo(kl_beta=0)", {"group_size": 4}),
        ("group_size=4 kl_beta=0.01", "grpo(kl_beta=0.01)", {"group_size": 4}),
        ("group_size=8 kl_beta=0", "grpo(kl_beta=0)", {"group_size": 8}),
        ("group_size=8 kl_beta=0.01", "grpo(kl_beta=0.01)", {"group_size": 8}),
    ]
    (first, _) = arms_of("grpo", [parse_axis("sampling.group_size=4,8")], None)
    assert (first.name, first.config) == ("sampling.group_size=4", {"group_size": 4})
    assert [a.method for a in arms_of("grpo(kl_beta=0.1)+sage:guidance", [parse_axis("clip_low=0.1,0.2")], None)] == [
        "grpo(kl_beta=0.1, clip_low=0.1)+sage:guidance",
        "grpo(kl_beta=0.1, clip_low=0.2)+sage:guidance",
    ]


def test_random_settings_lie_in_their_ranges_and_are_the_same_again() -> None:
    axes = [parse_axis("lr=1e-6..1e-4:log"), parse_axis("group_size=4..8"), parse_axis("kl=k1,k3")]
    arms = arms_of("grpo", axes, 12)
    assert arms == arms_of("grpo", axes, 12)
    assert len({a.name for a in arms}) == 12
    drawn = [a.settings for a in arms]
    assert all(1e-6 <= s["lr"] <= 1e-4 and s["group_size"] in range(4, 9) and s["kl"] in ("k1", "k3") for s in drawn)
    # Evenly in the logarithm: about half lie below the geometric mean.
    assert 2 <= sum(s["lr"] < 1e-5 for s in drawn) <= 10


@pytest.mark.parametrize(
    ("axes", "draws", "said"),
    [
        (["lr=1e-6..1e-4"], None, "say how many to draw with --random N"),
        (["group_siz=4,8"], None, "neither 'grpo' nor the configuration has it; did you mean 'group_size'"),
        (["group_size=4"], None, "single setting"),
        (["group_size=4,4"], None, "twice"),
        (["group_size=4,8", "group_size=2,3"], None, "given twice"),
        (["group_size=4,8", "sampling.group_size=2,3"], None, "group_size is given twice"),
        (["group_size"], None, "write KEY=VALUE"),
        (["lr=0..1:log"], 3, "above 0 for :log"),
        (["lr=2..1"], 3, "from a lower number to a higher one"),
        (["group_size=4,8"], 5, "only 2 different settings"),
        ([], None, "nothing to vary"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(axes: list[str], draws: int | None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        arms_of("grpo", [parse_axis(text) for text in axes], draws)


def test_a_hyperparameter_out_of_its_range_is_refused_before_anything_runs(
    options: dict[str, Any], tmp_path: Path
) -> None:
    err = refused(
        "sweep",
        "grpo",
        "--grid",
        "clip_low=0.1,7",
        "--model",
        options["model"],
        "--data",
        options["data"],
        "--reward",
        "number",
        "--out",
        tmp_path / "out",
    )
    assert "clip_low" in err
    assert not (tmp_path / "out").exists()


def test_a_sweep_has_its_parameters_as_columns_and_plots(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "train", stub([]))
    monkeypatch.setattr(queue, "evaluate_run", lambda *_: {})
    found = sweep(
        "grpo",
        [parse_axis("group_size=2,4")],
        options={k: v for k, v in options.items() if k != "group_size"},
        seeds=2,
        samples=2,
        out=tmp_path / "out",
        display=QUIET,
    )
    assert found.failures == {}
    assert found.findings.settings == {"group_size=2": {"group_size": 2}, "group_size=4": {"group_size": 4}}
    assert not any("different group_size" in note for note in found.findings.notes)
    text = found.report.read_text()
    assert 'data-chart="setting" data-of="group_size"' in text
    assert (tmp_path / "out" / "results.csv").read_text().splitlines()[0].startswith("data,measure,entry,group_size,")
