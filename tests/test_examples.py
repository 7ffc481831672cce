"""Every script of examples/ runs as it stands, and its page names them all."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from tests import micro

EXAMPLES = Path(__file__).parent.parent / "examples"
# What a script prints when it did what it is there for.
SAYS = {
    "own_reward": "reward ",
    "composed_reward": "with a weight of 0.20",
    "own_method": "sampled accuracy",
    "compare_methods": "report.html",
    "explain_token": "advantage",
    "loss_in_your_loop": "gradient",
}


def test_the_page_names_every_script() -> None:
    page = (EXAMPLES / "README.md").read_text()
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SAYS)
    assert all(f"[`{name}.py`]({name}.py)" in page for name in SAYS)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SAYS))
def test_scripts_run(
    name: str, tmp_path: Path, toy_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [str(EXAMPLES / f"{name}.py"), str(tmp_path / "out")])
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert "main" in found
    assert SAYS[name] in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] in ([], ["out"])


GUIDING = ("ghpo", "guide(max_rounds=1)", "policy-rollout", "rgr-grpo", "sage", "scaf-grpo(warmup_steps=0)")


@pytest.mark.parametrize("method", GUIDING)
def test_the_data_has_the_columns_of_methods_that_guide(method: str, micro_root: Path) -> None:
    given = {"data": str(EXAMPLES / "data/guided.jsonl"), "reward": ["number"], "prompts_per_step": 4, "group_size": 2}
    with micro.ready(micro_root, method, steps=1, **given) as parts:
        (result,) = micro.train(*parts)
    # Nothing is solved, so that all that a method can put into the prompt was put there.
    assert len(result.rollouts) == (16 if method == "policy-rollout" else 8)
    assert result.metrics["tokens"] > 8 * 4
