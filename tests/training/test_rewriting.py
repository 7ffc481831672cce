"""`cohort rewrite`: data made larger by a model that rewrites questions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from cohort.rollouts.sampler import StepSampler
from cohort.signals.rewriting import ASPECTS, rewritten, task
from cohort.training import rewriting
from tests import micro
from tests.cli.command import run, write
from tests.rewards.judges.serving import Serving, serve


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("Sure. <question>\nWhat is 2 + 2?\n</question> It is 4.", "What is 2 + 2?"),
        ("<question>a</question> no, better: <question>b</question>", "b"),
        ("<question> one  plus\none? </question>", None),
        ("<question></question>", None),
        ("What is 2 + 2?", None),
        ("<question>unfinished", None),
    ],
)
def test_the_rewritten_question_is_what_stands_between_the_tags(said: str, found: str | None) -> None:
    assert rewritten(said, "one plus one?") == found


def test_a_task_says_question_answer_and_aspect() -> None:
    texts = [task(name, "how {many}?", "7") for name in ASPECTS]
    assert len({*texts}) == 3
    assert all("how {many}?" in text and "\n7\n" in text for text in texts)


def test_rows_are_followed_by_their_rewritten_ones(
    micro_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model's answers are given: small ones do not write questions."""
    tried: Counter[str] = Counter()

    def ask(self: StepSampler, sources: Sequence[str]) -> list[str]:
        said = []
        for text in sources:
            tried[text] += 1
            name = next(name for name, how in ASPECTS.items() if how in text)
            asked = text.split("Question:\n")[1][0]
            # The second attempt at a term succeeds, and none at a sub-problem of c.
            fails = (name == "term" and tried[text] < 2) or (name == "sub-problem" and asked == "c")
            said.append("I cannot" if fails else f"<question>{name} {asked}</question>")
        return said

    monkeypatch.setattr(rewriting, "CHUNK", 3)
    monkeypatch.setattr(StepSampler, "_ask", ask)
    chat = [{"role": "system", "content": "briefly"}, {"role": "user", "content": "b"}]
    rows = [{"prompt": "a", "answer": "0", "level": 2}, {"prompt": chat, "answer": "3"}]
    rows += [{"prompt": letter, "answer": micro.answer(letter)} for letter in "cd"]
    data, out = write(tmp_path / "rows.jsonl", rows), tmp_path / "more.jsonl"
    status, _, err = run("rewrite", micro.folder(micro_root), "--data", data, "--out", out, "--max-new-tokens", 30)
    assert status == 0, err
    assert "11 of 12 questions were rewritten; with the 4 they were made of, 15 rows" in err
    assert sorted(tried.values()) == [1] * 7 + [2] * 4 + [3]
    made = [json.loads(line) for line in out.read_text().splitlines()]
    expected = []
    for row, letter in zip(rows, "abcd", strict=True):
        expected.append({**row, "aspect": "original"})
        for name in ASPECTS:
            text = f"{name} {letter}"
            asked = text if letter != "b" else [chat[0], {"role": "user", "content": text}]
            expected += [{**row, "prompt": asked, "aspect": name}] if text != "sub-problem c" else []
    assert made == expected
    # The method trains on them.
    with micro.ready(micro_root, "dgpo", data=str(out), steps=1, prompts_per_step=8) as parts:
        (result,) = micro.train(*parts)
    assert len({r.prompt.id for r in result.rollouts}) == 8


def test_a_model_that_writes_no_questions_leaves_the_rows_as_they_were(micro_root: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", [{"prompt": "a", "answer": "0"}])
    out = tmp_path / "more.jsonl"
    status, _, err = run("rewrite", micro.folder(micro_root), "--data", data, "--out", out, "--max-new-tokens", 8)
    assert (status, "0 of 3 questions were rewritten" in err) == (0, True)
    assert out.read_text() == '{"prompt": "a", "answer": "0", "aspect": "original"}\n'


def test_what_cannot_be_rewritten_is_refused(micro_root: Path, tmp_path: Path) -> None:
    writer = micro.folder(micro_root)
    data = write(tmp_path / "rows.jsonl", [{"prompt": "a"}])
    common = ("rewrite", writer, "--data", data)
    status, _, err = run(*common, "--out", tmp_path / "o.jsonl", "--aspect", "novel")
    assert (status, "there is no aspect 'novel': take some of background, term, sub-problem" in err) == (2, True)
    status, _, err = run(*common, "--out", tmp_path / "o.jsonl")
    assert (status, "line 1" in err, "--answer-field" in err) == (2, True, True)
    assert not (tmp_path / "o.jsonl").exists()
    status, _, err = run("rewrite", writer, "--out", tmp_path / "o.jsonl")
    assert (status, "no data was given" in err) == (2, True)


def test_a_server_rewrites_in_place_of_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COHORT_CACHE", str(tmp_path / "cache"))

    def answer(messages: list[dict[str, str]]) -> str:
        text = messages[-1]["content"]
        name = next(name for name, how in ASPECTS.items() if how in text)
        asked = text.split("Question:\n")[1].split("\n\nWrite")[0]
        return "no" if (name, asked) == ("term", "b of 2") else f"<question>{name} {asked}</question>"

    data = write(tmp_path / "rows.jsonl", [{"letter": letter, "of": 2, "answer": letter} for letter in "ab"])
    how = ("--data", data, "--template", "{letter} of {of}", "--max-new-tokens", 99)
    with serve(Serving(answer=answer)) as serving:
        status, _, err = run("rewrite", serving.url, *how, "--out", tmp_path / "more.jsonl")
        assert (status, serving.asked[0]["max_tokens"]) == (0, 99), err
        assert "5 of 6 questions were rewritten; with the 2 they were made of, 7 rows" in err
        made = [json.loads(line) for line in (tmp_path / "more.jsonl").read_text().splitlines()]
        assert [row["prompt"] for row in made[:3]] == ["a of 2", "background a of 2", "term a of 2"]
        assert {row["answer"] for row in made if "a of 2" in row["prompt"]} == {"a"}
        # Three attempts for the one that fails.
        assert len(serving.asked) == 6 + 2
        # The budget is kept to, and what was not answered is left out.
        more = ("--out", tmp_path / "few.jsonl", "--judge-calls", 2, "--template", "{letter} again of {of}")
        status, _, err = run("rewrite", serving.url, *how, *more)
        assert status == 0, err
        assert "2 of 6 questions were rewritten" in err
        assert "not all questions were answered" in err
    status, _, err = run("rewrite", serving.url, *how, "--out", tmp_path / "none.jsonl", "--judge-timeout", 2)
    assert status == 2, err
    assert not (tmp_path / "none.jsonl").exists()
