"""Files of pairs and of labelled completions: what they may look like, and what is said of those that do not."""

from __future__ import annotations

import json

import pytest

from cohort.data.pairs import load_pairs, read_pairs
from cohort.data.prompts import PromptSpec
from cohort.errors import UsageError
from cohort.training.sft import completion_tokens
from tests.helpers import tiny_policy

USER, ASSISTANT = ({"role": role, "content": role} for role in ("user", "assistant"))


@pytest.fixture(scope="module")
def policy():
    return tiny_policy()


@pytest.fixture
def load(policy):
    """Rows -> preferences, with what was said on the way."""

    def run(rows, **spec):
        said = []
        spec = PromptSpec(**spec)
        source = read_pairs(rows, spec, log=said.append)
        return load_pairs(
            source, policy.renderer, spec, lambda prompt, text: completion_tokens(policy.renderer, text, prompt)
        ), said

    return run


def plain(preference):
    return preference.prompt.source, [(written.text, written.label) for written in preference.completions]


def test_a_pair_is_a_prompt_with_a_good_and_a_bad_completion(load, policy):
    (found,), said = load([{"prompt": "1+1=", "chosen": "2", "rejected": "3", "labeller": "a"}])
    assert plain(found) == ("1+1=", [("2", 1.0), ("3", 0.0)])
    assert found.decided
    assert found.prompt.row["labeller"] == "a"
    assert found.prompt.tokens == policy.renderer.encode("<|user|>1+1=<|assistant|>")
    assert [written.tokens for written in found.completions] == [(*policy.renderer.encode(text), 1) for text in "23"]
    assert said == []


@pytest.mark.parametrize(("label", "number"), [(True, 1.0), (False, 0.0), (1, 1.0), (0, 0.0), (1.0, 1.0), (0.0, 0.0)])
def test_a_single_completion_has_a_label(load, label, number):
    (found,), _ = load([{"prompt": "1+1=", "completion": "2", "label": label}])
    assert plain(found) == ("1+1=", [("2", number)])
    assert not found.decided


def test_single_completions_of_a_prompt_belong_together_and_pairs_do_not(load):
    single = [{"prompt": prompt, "completion": text, "label": text == "2"} for prompt, text in ("a2", "b2", "a3")]
    pair = {"prompt": "a", "chosen": "4", "rejected": "5"}
    found, _ = load([pair, *single, pair])
    assert [plain(each) for each in found] == [
        ("a", [("4", 1.0), ("5", 0.0)]),
        ("a", [("2", 1.0), ("3", 0.0)]),
        ("b", [("2", 1.0)]),
        ("a", [("4", 1.0), ("5", 0.0)]),
    ]
    assert len({each.prompt.id for each in found}) == 4
    assert len({each.prompt.text for each in found}) == 2
    again, _ = load([pair, *single, pair])
    assert [each.prompt.id for each in again] == [each.prompt.id for each in found]


def test_messages_are_taken_as_a_prompt_and_as_completions(load):
    row = {"prompt": [USER], "chosen": [ASSISTANT], "rejected": [USER, {"role": "assistant", "content": "no"}]}
    (found,), _ = load([row])
    assert plain(found) == ([USER], [("assistant", 1.0), ("no", 0.0)])
    assert found.prompt.text == "<|user|>user<|assistant|>"
    (same,), _ = load([{**row, "prompt": "user"}])
    assert same.prompt.text == found.prompt.text


def test_columns_and_templates_are_named_as_for_prompts(load, policy):
    row = {"question": "1+1", "chosen": "2", "rejected": "3"}
    (found,), _ = load([row], prompt_field="question", answer_field="gold")
    assert found.prompt.source == "1+1"
    (found,), _ = load([row], template="{question} = ?", system="Add.")
    assert found.prompt.source == "1+1 = ?"
    assert found.prompt.text == policy.renderer.render("1+1 = ?", "Add.")


def test_files_are_read_like_data(load, tmp_path):
    rows = [{"prompt": "a", "chosen": "1", "rejected": "2"}, {"prompt": "b", "completion": "1", "label": True}]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [plain(each) for each in load(path)[0]] == [plain(each) for each in load(rows)[0]]


def test_equal_completions_are_mentioned(load):
    rows = [{"prompt": "a", "chosen": "1", "rejected": "1"}, {"prompt": "b", "chosen": "1", "rejected": "2"}]
    found, said = load(rows)
    assert len(found) == 2
    assert said == ["pairs: in 1 of 2 rows 'chosen' and 'rejected' are the same: they teach nothing"]


GOOD = {"prompt": "a", "chosen": "1", "rejected": "2"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"chosen": "1", "rejected": "2"},
            r"row 2: there is no column 'prompt' \(it has: chosen, rejected\); .*--prompt",
        ),
        (
            {"prompt": "a", "chosen": "1"},
            r"there is no column 'rejected' \(it has: prompt, chosen\); a row has 'chosen' and",
        ),
        (
            {"prompt": "a", "rejected": "1"},
            r"there is no column 'chosen' \(it has: prompt, rejected\); a row has 'chosen' and",
        ),
        (
            {"prompt": "a", "answer": "1"},
            r"there is no column 'chosen' \(it has: prompt, answer\); .* 'completion' and its",
        ),
        (
            {"prompt": "a", "completion": "1"},
            r"pairs, row 2: there is no column 'label' \(it has: prompt, completion\)",
        ),
        (
            {"prompt": "a", "completion": "1", "label": "good"},
            r"row 2: 'label' must be true or false \(1 or 0\), not 'good'",
        ),
        (
            {"prompt": "a", "completion": "1", "label": None},
            r"row 2: 'label' must be true or false \(1 or 0\), not None",
        ),
        ({"prompt": "a", "completion": "1", "label": 0.5}, r"row 2: 'label' must be true or false \(1 or 0\), not 0.5"),
        (
            {**GOOD, "chosen": 1},
            r"row 2: 'chosen' must be a text, or a list of messages that ends with the assistant's, not 1",
        ),
        ({**GOOD, "rejected": None}, r"row 2: 'rejected' must be a text, or a list of messages"),
        ({**GOOD, "rejected": ["2"]}, r"row 2: 'rejected' must be a text, or a list of messages"),
        (
            {**GOOD, "rejected": [ASSISTANT, USER]},
            r"row 2: 'rejected' must be a text, or a list of messages that ends with",
        ),
        (
            {**GOOD, "chosen": [USER, ASSISTANT]},
            r"row 2: 'chosen' has messages before its last one that are not those of the",
        ),
        ({**GOOD, "prompt": 5}, r"row 2: the prompt must be a text or a list of messages"),
        (
            {**GOOD, "rejected": "x" * 130},
            r"row 2: prompt and completion have 134 tokens together, .* context of 128: shorten",
        ),
        ("a", r"data, row 2: expected a mapping of columns, found str"),
    ],
)
def test_a_row_that_is_no_pair_is_named_with_what_it_lacks(load, row, message):
    with pytest.raises(UsageError, match=message):
        load([GOOD, row])
