"""Runs with the tokenizers and templates that people have: what is refused leaves no folder, what is drawn is seen whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cohort.errors import UsageError
from cohort.training.config import make_config
from cohort.training.display import Display
from cohort.training.run import train
from tests.model_folders import make_folder


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("people")

    def made(name: str) -> str:
        return str(root / name if (root / name).exists() else make_folder(name, root / name))

    return made


def run(model: str, out: Path, **changes: Any) -> list[str]:
    """Run one step; what was said."""
    said: list[str] = []
    display = Display(quiet=True)
    display.log = said.append  # type: ignore[method-assign]
    base = {
        "model": model,
        "data": [{"prompt": "What is 2 + 2?", "answer": "4"}],
        "reward": ["length"],
        "steps": 1,
        "prompts_per_step": 1,
        "group_size": 4,
        "max_new_tokens": 4,
        "tensorboard": False,
        "out": str(out),
        "device": "cpu",
    }
    train(make_config({**base, **changes}), display=display)
    return said


def asking(content: Any) -> dict[str, Any]:
    return {"prompt": [{"role": "user", "content": content}]}


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        (
            "gemma",
            {"system": "Be brief."},
            r"data, row 1: the chat template .* no system role; put the text into --template",
        ),
        ("chat", {"data": [asking([{"type": "image"}])]}, r"data, row 1: message 1 \(user\)"),
        ("plain", {"data": [asking(None)]}, r"data, row 1: message 1 \(user\) has no content"),
        ("smallvocab", {"data": [{"prompt": "use <tool_x> now"}]}, r"data, row 1: token <tool_x> \(id 420\)"),
        ("smallvocab", {"eval_data": [{"prompt": "<tool_x>", "answer": "1"}]}, r"data, row 1: token <tool_x>"),
        ("smallvocab", {"logit_bias": {"</tool_x>": 1.0}}, r"logit_bias: token </tool_x> \(id 421\)"),
        ("plain", {"prompt_format": "chat"}, r"prompt_format is chat, but the tokenizer of .* has no chat template"),
        ("chat", {"special_tokens": ["<think>"]}, r"special_tokens: '<think>' is no special token of"),
        ("chat", {"system": "a\udc80"}, r"data, row 1: the text has half of a surrogate pair|system"),
    ],
)
def test_what_a_model_cannot_read_is_refused_before_there_is_a_folder(
    people: Any, tmp_path: Path, name: str, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        run(people(name), tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_a_prompt_of_a_run_is_said_and_its_end_is_that_of_the_template(people: Any, tmp_path: Path) -> None:
    said = run(people("chatbase"), tmp_path / "run", template=r"Q: {prompt}\nA:")
    assert r"user\nQ: What is 2 + 2?\nA:<|im_end|>" in said[0]
    assert said[1].startswith("rollouts end with <|im_end|>, too")
    said = run(people("addeos"), tmp_path / "other", prompt_format="text")
    assert said[0].endswith("'<s>What is 2 + 2?'")


@pytest.mark.parametrize("special_tokens", ["content", "none"])
def test_rewards_see_the_special_tokens_that_are_content(people: Any, tmp_path: Path, special_tokens: str) -> None:
    from cohort.policies.causal_lm import CausalLM

    policy = CausalLM.load(people("specialtags"))
    (tag,) = policy.renderer.encode("<answer>")
    path = tmp_path / "rewards.py"
    path.write_text("def tagged(completions, **_):\n    return [float('<answer>' in text) for text in completions]\n")
    out = tmp_path / "run"
    run(people("specialtags"), out, logit_bias={tag: 50.0}, reward=[f"{path}:tagged"], special_tokens=special_tokens)
    (line,) = (out / "metrics.jsonl").read_text().splitlines()
    assert f'"reward/mean": {float(special_tokens == "content")}' in line


@pytest.mark.parametrize("name", ["llama2", "metaspace", "chatbase"])
def test_pairs_are_recorded_as_they_were_written(people: Any, tmp_path: Path, name: str) -> None:
    import pyarrow.parquet as pq

    rows = [{"prompt": "there was a", "chosen": " little girl", "rejected": "red ball"}]
    run(people(name), tmp_path / "run", method="dpo", data=None, pairs=rows, reward=[], record="tokens")
    pieces = pq.read_table(tmp_path / "run" / "rollouts" / "step-000001.parquet")["pieces"].to_pylist()
    end = "<|im_end|>" if name == "chatbase" else "</s>"
    assert sorted("".join(each) for each in pieces) == sorted([f" little girl{end}", f"red ball{end}"])
