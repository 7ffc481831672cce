"""Data and rewards are looked at before any training."""

from __future__ import annotations

import json

import pytest

from cohort.doctor import diagnoses
from cohort.doctor.attacks import GOLD, Paid
from cohort.doctor.dataset import Data, Verdicts, examine_data
from cohort.errors import UsageError
from cohort.training.config import make_config
from tests.helpers import tiny_policy

SUMS = [{"prompt": f"What is {a} plus {b}?", "answer": str(a + b)} for a in range(9) for b in range(9)]
HELD_OUT = [{"prompt": f"What is {a} plus {b}?", "answer": str(a + b)} for a in range(20, 26) for b in range(4)]
VERIFIERS = '''
import random

def deaf(completions, answer, **_):
    """Accepts nothing."""
    return [0.0 for _ in completions]

def kind(completions, answer, **_):
    """Accepts anything."""
    return [1.0 for _ in completions]

def moody(completions, answer, **_):
    """Says what comes to its mind."""
    return [float(random.random() < 0.5) for _ in completions]

def broken(completions, answer, **_):
    raise ValueError("out of order")
'''


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "verifiers.py").write_text(VERIFIERS)
    return tmp_path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    tiny_policy().save(path)
    return str(path)


def names(report):
    return {finding.name for finding in report.findings}


def look(rows, folder, reward="number", **options):
    reward = f"{folder}/verifiers.py:{reward}" if reward in ("deaf", "kind", "moody", "broken") else reward
    samples = options.pop("samples", 0)
    return examine_data(make_config({"data": rows, "reward": [reward], **options}), samples=samples, limit=40)


def test_sound_data_with_a_sound_verifier_is_left_alone(folder):
    for reward in ("number", "math", "exact"):
        report = look(SUMS, folder, reward, eval_data=HELD_OUT)
        assert report.findings == ()
        assert set(report.missing) == {"too-long", "out-of-reach"}
        assert report.problems == ()


@pytest.mark.parametrize(
    ("reward", "answer"),
    [("json-answer", lambda n: {"sum": n}), ("set", lambda n: [f"item {n}", "b"]), ("text", lambda n: f"item {n}")],
)
def test_answers_that_are_objects_or_lists_are_written_as_json(folder, reward, answer):
    rows = [{"prompt": row["prompt"], "answer": answer(n)} for n, row in enumerate(SUMS)]
    assert not look(rows, folder, reward).findings


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([*SUMS, {"prompt": "What is 3 plus 4?", "answer": "8"}], {"contradictory-answers", "duplicates"}),
        ([*SUMS, {"prompt": "What is 9 plus 9?", "answer": None}], {"unanswerable"}),
        ([*SUMS, {"prompt": "What is nine plus 9?", "answer": "eighteen"}], {"unanswerable"}),
        ([*SUMS, {"prompt": "What is 9 plus 9?", "answer": "None"}], {"unanswerable"}),
        ([*SUMS, {"prompt": "What is 3 plus 4?", "answer": "7.0"}], {"duplicates"}),
        ([*SUMS, {"prompt": "", "answer": "3"}], {"near-empty"}),
        ([*SUMS[:30], *({"prompt": f"Is {n} a number?", "answer": "1"} for n in range(60))], {"guessable"}),
    ],
)
def test_rows_that_are_wrong_are_named(folder, rows, found):
    report = examine_data(make_config({"data": rows, "reward": ["number"]}), limit=200)
    assert names(report) == found
    if len(rows) == len(SUMS) + 1 and found != {"duplicates"}:
        assert any("82" in each.text for finding in report.findings for each in finding.evidence)


def test_held_out_prompts_that_are_trained_on_are_found_also_where_they_differ_in_spacing(folder):
    held_out = [*HELD_OUT, {"prompt": "what is  3 PLUS 4", "answer": "7"}]
    (finding,) = look(SUMS, folder, eval_data=held_out).findings
    assert (finding.name, finding.severity) == ("duplicates", "alarm")
    assert "1 of 25 held-out prompts" in finding.evidence[0].text
    assert "(0 to the letter): row 25 of it" in finding.evidence[0].text


def test_what_training_leaves_out_by_itself_is_less_grave(folder):
    (finding,) = look(SUMS, folder, eval_data=[*HELD_OUT, SUMS[0]]).findings
    assert (finding.name, finding.severity) == ("duplicates", "warning")
    assert "(1 to the letter)" in finding.evidence[0].text


def test_held_out_prompts_that_are_reworded_are_found(folder):
    story = (
        "Tom has {n} apples and gives his sister Anna {k} of them before they both walk home from the market on Sunday"
    )
    rows = [{"prompt": story.format(n=n, k=k) + ".", "answer": str(n - k)} for n in range(10, 40) for k in range(3)]
    held_out = [
        {"prompt": "Now " + story.format(n=12, k=2) + "!", "answer": "10"},
        {"prompt": story.format(n=112, k=2) + ".", "answer": "110"},
    ]
    (finding,) = [f for f in look(rows, folder, eval_data=held_out).findings if f.name == "duplicates"]
    assert [each.text for each in finding.evidence] == ["1 of 2 held-out prompts nearly are: row 1 of it"]


@pytest.mark.parametrize(
    ("reward", "found"),
    [
        ("deaf", {"rejects-gold"}),
        ("kind", {"accepts-wrong", "paid-for-nothing", "paid-for-hedging"}),
        ("moody", {"unstable-verdicts", "accepts-wrong", "paid-for-nothing", "paid-for-hedging"}),
    ],
)
def test_a_verifier_that_errs_is_found(folder, reward, found):
    # Of a verifier that says what comes to its mind, some gold answers may be rejected in all five ways of writing them.
    assert names(look(SUMS, folder, reward)) - ({"rejects-gold"} if reward == "moody" else set()) == found


def test_completions_that_answer_nothing_and_are_paid_are_found(folder):
    rewards = ["number", "0.5*format:<think>.*</think>.*<answer>.*</answer>", "length:200"]
    config = {"data": SUMS, "reward": rewards}
    report = examine_data(make_config(config), limit=12)
    (finding,) = report.findings
    assert (finding.name, finding.severity) == ("paid-for-nothing", "warning")
    paid = finding.evidence[0].numbers
    # Words stand for tokens where there is no model: 2 of 200 in a right answer, none in an empty one.
    assert paid["the right answer"] == pytest.approx(2.5, abs=0.1)
    assert paid["an empty completion"] == 1.0
    assert paid["the answer's form, empty"] == pytest.approx(1.5, abs=0.05)
    assert paid["a very long text"] == 0.0
    assert "the answer's form, empty: 1.4" in finding.evidence[1].text
    assert "'<think>\\n</think>" in finding.evidence[1].text
    # Gates take the way to it away, and a weight that falls to nothing does too.
    gates = ["length if number", "number,format if format and number"]
    for sound in (
        {"reward": ["number", "0.5*format:<think>", "length:200"], "reward_gate": ["length,format if number"]},
        {"reward": ["number", "length:200"], "reward_schedule": ["length 0:1 10:0.1"]},
    ):
        assert examine_data(make_config({**config, **sound}), limit=12).findings == ()
    with pytest.raises(UsageError, match="in a circle"):
        examine_data(make_config({**config, "reward_gate": gates}), limit=12)


def test_completions_that_commit_to_no_answer_and_are_paid_are_found(folder):
    rows = [{"prompt": f"Is {n} odd? A: yes, B: no", "answer": "AB"[n % 2 == 0]} for n in range(24)]
    (folder / "lax.py").write_text(
        "def lax(completions, answer, **_):\n    return [float(a in c) for c, a in zip(completions, answer)]\n"
    )
    report = examine_data(make_config({"data": rows, "reward": [f"{folder}/lax.py:lax"]}), limit=12)
    found = {finding.name: finding for finding in report.findings}
    # The prompt names both letters, too.
    assert set(found) == {"guessable", "paid-for-nothing", "paid-for-hedging"}
    hedging = found["paid-for-hedging"]
    assert hedging.severity == "alarm"
    said = [each.text for each in hedging.evidence]
    assert any(text.startswith("all answers at once: 1 on average") for text in said)
    assert any(text.startswith("the right answer, denied: 1 on average") for text in said)
    # A verifier that reads one letter is not fooled.
    assert "paid-for-hedging" not in names(
        examine_data(make_config({"data": rows, "reward": ["conclusion"]}), limit=12)
    )


def test_without_right_answers_it_is_said_what_is_missing(folder):
    (folder / "own.py").write_text("def own(completions):\n    return [1.0 for _ in completions]\n")
    rows = [{"prompt": f"Write {n} lines."} for n in range(4)]
    report = examine_data(make_config({"data": rows, "reward": [f"{folder}/own.py:own"]}), limit=12)
    assert "a column `answer` or `solution`" in report.missing["paid-for-nothing"]


def test_a_verifier_that_fails_is_said_and_the_rest_shown(folder):
    report = look([*SUMS, SUMS[0]], folder, "broken")
    assert names(report) == {"duplicates"}
    assert "needs verdicts" in report.missing["rejects-gold"]
    assert "out of order" in report.problems[0]
    assert len(report.problems) <= 4


def test_prompts_longer_than_the_models_context_are_named(folder, model):
    rows = [*SUMS[:12], {"prompt": "1+" * 80, "answer": "81"}]
    report = look(rows, folder, model=model, max_new_tokens=16)
    (finding,) = [f for f in report.findings if f.name == "too-long"]
    assert finding.severity == "alarm"
    assert "1 of 13 prompts have more than 112 tokens" in finding.evidence[0].text
    assert "row 13" in finding.evidence[0].text


def test_prompts_that_the_model_never_solves_are_found_by_drawing(folder, model):
    report = look(SUMS[:12], folder, model=model, max_new_tokens=4, samples=4)
    (finding,) = [f for f in report.findings if f.name == "out-of-reach"]
    assert finding.severity == "alarm"
    assert finding.evidence[0].numbers["never"] > 0.9


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(UsageError, match="no data was given"):
        examine_data(make_config({}))
    with pytest.raises(UsageError, match="there is no file nowhere"):
        examine_data(make_config({"data": "nowhere.jsonl"}))
    with pytest.raises(UsageError, match="--model"):
        examine_data(make_config({"data": SUMS}), samples=4)


def test_every_diagnosis_of_data_is_silent_on_what_it_can_see_nothing_of():
    rows = [{"prompt": "a b c", "answer": "1"}] * 2
    paid = {GOLD: Paid({0: 1.0}, {0: "1"})}
    data = Data("d", rows, ["a b c", "d e f"], verdicts=[Verdicts(1, {"plain": 1.0})], paid=paid)
    for each in diagnoses("data"):
        if each.name not in ("too-long", "out-of-reach"):
            assert each(data) is None, each.name


def test_the_report_is_one_json_object(folder):
    report = look([*SUMS, SUMS[0]], folder)
    assert json.loads(json.dumps(report.to_dict()))["findings"][0]["name"] == "duplicates"
