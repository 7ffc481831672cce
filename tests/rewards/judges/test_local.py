import pytest
import torch

from cohort.rewards.judges.judges import Judges, JudgeSettings
from cohort.rewards.judges.local import Local
from cohort.rewards.judges.reply import Drawing
from tests.model_folders import make_folder

QUESTIONS = ["2 + 2 = 4 ?", "x", [{"role": "system", "content": "be kind"}, {"role": "user", "content": "3 + 3 = 6 ?"}]]


def made(name, folder):
    make_folder(name, folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made("chat", tmp_path_factory.mktemp("judge"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COHORT_CACHE", str(tmp_path / "cache"))


def test_a_local_model_replies_alone_as_in_a_batch(folder) -> None:
    judges = Judges(JudgeSettings(cache=False, reply=6))
    together = judges.ask(str(folder), QUESTIONS)
    alone = [judges.ask(str(folder), [question])[0] for question in QUESTIONS]
    assert [reply.text for reply in together] == [reply.text for reply in alone]
    assert len({reply.read for reply in together}) == 3
    assert all(0 < reply.written <= 6 and not reply.error for reply in together)
    assert judges.ledger.calls == 6


def test_its_replies_are_kept_as_long_as_it_is_the_same(folder, tmp_path) -> None:
    first = Judges(JudgeSettings(reply=4)).ask(str(folder), QUESTIONS[:1])
    again = Judges(JudgeSettings(reply=4))
    assert again.ask(str(folder), QUESTIONS[:1])[0].text == first[0].text
    assert again.ledger.calls == 0
    other = made("chatbase", tmp_path)
    assert Judges().ask(str(other), QUESTIONS[:1], tokens=4)[0].cached is False


def test_drawing_leaves_the_random_numbers_of_the_run_alone(folder) -> None:
    before = torch.get_rng_state()
    judges = Judges(JudgeSettings(reply=12, cache=False))
    drawn = judges.ask(str(folder), ["a"] * 4, temperature=2.0, samples=range(4))
    assert torch.equal(before, torch.get_rng_state())
    assert len({reply.text for reply in drawn}) > 1
    assert judges.ask(str(folder), ["a"] * 4, temperature=2.0, samples=range(4)) == drawn


@pytest.mark.parametrize("name", ["plain", "gemma"])
def test_models_without_a_chat_template_or_system_messages_judge_too(name, tmp_path) -> None:
    replies = Judges(JudgeSettings(reply=4)).ask(str(made(name, tmp_path)), QUESTIONS)
    assert all(reply.written and not reply.error for reply in replies)


def test_a_question_that_is_too_long_says_so_and_leaves_the_others(folder) -> None:
    model = Local(str(folder))
    questions = [[{"role": "user", "content": text}] for text in ("x " * 5000, "x")]
    long, short = model.answer(questions, Drawing(8), seconds=30.0, paid=lambda: True)
    assert "is longer than its" in long.error
    assert not short.error
    assert [r.spent for r in model.answer(questions[1:], Drawing(8), seconds=30.0, paid=lambda: False)] == [True]
