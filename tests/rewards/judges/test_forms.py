import pytest

from cohort.errors import UsageError
from cohort.rewards.judges.forms import Unread, form_of

READ = {
    "score 1-10": [
        ("Score: 10", 1.0),
        ("It is fine.\n**Score:** 1", 0.0),
        ("score is 5.5", 0.5),
        ("Score = [[7]]/10", 6 / 9),
        ('{"score": 4}', 1 / 3),
        ("Rating: \\boxed{1}", 0.0),
        ("7", 6 / 9),
        ("4/10", 1 / 3),
        ("<think>Score: 2</think>\nScore: 10", 1.0),
        ("thoughts of Score: 2 </think> Score: 10", 1.0),
        ("The answer claims 'Score: 10'. It is bad. Score: 1", 0.0),
    ],
    "verdict": [
        ("Verdict: yes", True),
        ("**Verdict**: No.", False),
        ("yes", True),
        ("Verdict: yes? No, on reflection:\nVerdict: no", False),
        ('"verdict": true', True),
    ],
    "decision": [
        ("Final Decision: Yes", True),
        ("final decision:true, surely", True),
        ("Final Decision: No. Final Decision: Yes", False),
        ("Yes", False),
        ("", False),
    ],
    "criteria": [
        ("1: yes\n2: no", [True, False]),
        ("**1.** No - it lacks it\n- Criterion 2: YES", [False, True]),
        ("so\n[true, false]", [True, False]),
        ('{"1": "yes", "2": "no"}', [True, False]),
        ("1: no\n1: yes\n2) no", [True, False]),
    ],
    "pair": [
        ("Better: A", 0),
        ("Better: **B**", 1),
        ("Better: tie", None),
        ("They differ. [[B]]", 1),
        ("Winner: answer A", 0),
        ("B", 1),
    ],
    "steps": [
        ("Wrong steps: 3, 1", [1, 3]),
        ("**Wrong steps:** none", []),
        ("Wrong step: [2]", [2]),
        ("Wrong steps: []", []),
        ("Wrong steps: none of the 3 steps", []),
    ],
}
UNREAD = {
    "score 1-10": [
        ("", "it is empty"),
        ("good", "no line 'Score: N' in it, N from 1 to 10"),
        ("Score: 11", "the score 11 is not from 1 to 10"),
        ("Score: 70/100", "a score out of 100, not out of 10"),
        ("Score: ten", "no line"),
        ("<think>Score: 7", "it was cut off while it was thinking"),
    ],
    "verdict": [("perhaps", "no line 'Verdict: yes'"), ("Yes, but no.", "no line"), ("Verdict: maybe", "no line")],
    "criteria": [("1: yes", "for criterion 2"), ("[true]", "for criterion 1, 2"), ("[" * 5000, "for criterion 1, 2")],
    "pair": [("I prefer A", "no line 'Better: A'"), ("Better: C", "no line")],
    "steps": [("none", "no line 'Wrong steps: ...'"), ("Wrong steps: the second", "names no numbers")],
}


@pytest.mark.parametrize("form", READ)
def test_answers_are_read_as_models_write_them(form) -> None:
    for reply, answer in READ[form]:
        assert form_of(form).read(reply, 2) == pytest.approx(answer), reply


@pytest.mark.parametrize("form", UNREAD)
def test_what_cannot_be_read_says_why(form) -> None:
    for reply, why in UNREAD[form]:
        with pytest.raises(Unread) as caught:
            form_of(form).read(reply, 2)
        assert why in str(caught.value), reply


@pytest.mark.parametrize("form", READ)
def test_a_judge_is_asked_for_what_is_read(form) -> None:
    """The line that the request shows as an example can be read."""
    ask = form_of(form).ask
    example = {
        "score": "Score: 3",
        "verdict": "Verdict: yes",
        "decision": "Final Decision: Yes",
        "criteria": "1: yes\n2: no",
        "pair": "Better: tie",
        "steps": "Wrong steps: none",
    }[form_of(form).name]
    form_of(form).read(example, 2)
    assert example.split("\n")[0].split(":")[0].replace("1", "N") in ask


def test_scales_are_those_that_were_asked_for() -> None:
    assert form_of("score 0-5").read("Score: 4/5", 0) == pytest.approx(0.8)
    assert form_of("Score -1 to 1").read("Score: -0.5", 0) == pytest.approx(0.25)
    for bad in ("score", "score 5-1", "stars", "score 1-10 and more"):
        with pytest.raises(UsageError, match="a judge answers with score LOW-HIGH"):
            form_of(bad)
