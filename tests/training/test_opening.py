"""What a run says of the text that the model gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cohort.data.prompts import PromptSpec, load_prompts
from cohort.policies.causal_lm import CausalLM
from cohort.training.opening import SHOWN, log_text
from tests.model_folders import make_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("people")

    def made(name: str) -> Path:
        return root / name if (root / name).exists() else make_folder(name, root / name)

    return made


def said(folder: Path, rows: list[dict[str, Any]], *, sampled: bool = True, **options: Any) -> list[str]:
    policy, out = CausalLM.load(str(folder), **options), []
    log_text(policy.renderer, load_prompts(rows, policy.renderer, PromptSpec()), out.append, sampled=sampled)
    return out


def test_the_first_prompt_is_shown_as_the_model_gets_it(folder: Any) -> None:
    rows = [{"prompt": "1 + 1"}, {"prompt": "2 + 2"}]
    through = r"'<|im_start|>user\n1 + 1<|im_end|>\n<|im_start|>assistant\n'"
    assert said(folder("chat"), rows) == [f"the first prompt (through the chat template, 16 tokens): {through}"]
    assert said(folder("chat"), rows, prompt_format="text") == ["the first prompt (as plain text, 4 tokens): '1 + 1'"]
    assert said(folder("plain"), rows) == ["the first prompt (as plain text, 4 tokens): '<s>1 + 1'"]
    (long,) = said(folder("plain"), [{"prompt": "1 + 1 " * 80}])
    assert " ... " in long
    assert len(long) < SHOWN + 100


def test_what_is_not_as_the_model_says_is_mentioned(folder: Any) -> None:
    rows = [{"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, {"prompt": "c"}]
    first, going_on, ends = said(folder("chatbase"), rows)
    assert going_on == "1 of 2 prompts end with the assistant's message, and the model goes on with it"
    assert ends.startswith("rollouts end with <|im_end|>, too")
    assert said(folder("chatbase"), rows, sampled=False) == [first, going_on]
