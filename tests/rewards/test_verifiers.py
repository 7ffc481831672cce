"""The rewards that cohort brings, on texts and on chat completions."""

from __future__ import annotations

import re

import pytest

from cohort.rewards.builtin import KINDS
from cohort.rewards.verifiers import exact, math, numeric, partial_task, shortness, strict_math, task, text_of


def chat(text):
    return [{"role": "assistant", "content": text}]


def both(function, text, **columns):
    """The value of a completion, which must be the same for a text and for a message with that text."""
    (plain,) = function(completions=[text], **columns)
    (message,) = function(completions=[chat(text)], **columns)
    assert plain == message
    return plain


def test_text_of_is_what_was_said_after_the_last_message_of_others():
    messages = [{"role": "assistant", "content": "a"}, {"role": "tool"}, {"role": "assistant", "content": "b"}]
    assert text_of(messages) == "b"
    assert text_of([*messages, {"role": "assistant", "content": "c"}]) == "bc"
    assert text_of(messages[:2]) == ""
    assert text_of("ab") == "ab"
    assert text_of([]) == ""


@pytest.mark.parametrize(
    ("completion", "answer", "expected"),
    [
        ("yes", "yes", 1.0),
        (" yes\n", "yes", 1.0),
        ("a  b", "a b", 1.0),
        ("Yes", "yes", 0.0),
        ("I say <answer>yes</answer>", "yes", 1.0),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}", 1.0),
        (r"\boxed{0.5}", r"\frac{1}{2}", 0.0),
        ("#### 18", 18, 1.0),
        ("it is 18", "18", 0.0),
        ("", "18", 0.0),
        ("<think>I have to put it into <answer> tags.</think>\n<answer>4</answer>", "4", 1.0),
        (r"So \boxed{4}. Again: \boxed{4", "4", 1.0),
        ("<think>why</think> yes", "yes", 1.0),
        ("<answer>007</answer>", "007", 1.0),
        ("7", "007", 0.0),
        ("2.5", 2.5, 1.0),
        ("18", 18.0, 1.0),
        ("true", True, 1.0),
        ("", "", None),
        ("None", None, None),
        ("None", "None", None),
    ],
)
def test_exact_compares_the_final_answer_up_to_white_space(completion, answer, expected):
    assert both(exact, completion, answer=[answer]) == expected


@pytest.mark.parametrize(
    ("completion", "answer", "expected"),
    [
        ("4-1=3", "3", 1.0),
        ("5-9=-4", "-4", 1.0),
        ("5-9=-4", "4", 0.0),
        ("2+3", "5", 0.0),
        ("it is $1,234.00", "1234", 1.0),
        ("it is 1234", "$1,234", 1.0),
        ("<answer>3</answer> and not 4", "3", 1.0),
        ("3 <answer></answer>", "3", 0.0),
        (r"\boxed{3 \text{ apples}}", 3.0, 1.0),
        ("none", "3", 0.0),
        ("", "3", 0.0),
        ("3", "three", None),
        ("7", "3,5,7", None),
        (r"\boxed{\frac{1}{2}}", "2", 0.0),
        (r"\boxed{\frac{1}{2}}", "1/2", 1.0),
        (r"\boxed{10^2}", "2", 0.0),
        (r"\boxed{10^2}", "100", 1.0),
        (r"\boxed{12 \text{ cm}^2}", "2", 0.0),
        (r"\boxed{12 \text{ cm}^2}", "12", 1.0),
        (r"\boxed{3,5,7}", "7", 0.0),
        ("The answer is 1e3", "1000", 1.0),
        ("The answer is 1e3", "3", 0.0),
        ("The answer is \u22125.", "-5", 1.0),
        ("The answer is \u22125.", "5", 0.0),
        ("<think>3 of 5</think><answer>4", "4", 1.0),
        ("It takes 1:30", "30", 0.0),
        (r"\boxed{A) 5}", "5", 1.0),
        (r"It is $\boxed 5$.", "5", 1.0),
        ("The answer is B. 5", "5", 1.0),
        ("#### C: 5", "5", 1.0),
        ("25%", "25%", 1.0),
        ("3", None, None),
        ("3", "", None),
        ("3", "None", None),
    ],
)
def test_number_compares_the_number_of_the_final_answer(completion, answer, expected):
    assert both(numeric, completion, answer=[answer]) == expected


@pytest.mark.parametrize(
    ("completion", "answer", "expected"),
    [
        (r"\boxed{\frac{1}{2}}", "0.5", 1.0),
        (r"so $\frac{2}{4}$", r"\frac{1}{2}", 1.0),
        (r"\boxed{\sqrt{8}}", r"$2\sqrt{2}$", 1.0),
        (r"\boxed{x^2+2x+1}", "(x+1)^2", 1.0),
        (r"\boxed{(1,2)}", "(1,2)", 1.0),
        (r"\boxed{(2,1)}", "(1,2)", 0.0),
        (r"\boxed{70,000}", "70000", 1.0),
        (r"<answer>\frac{1}{2}</answer>", "0.5", 1.0),
        ("<answer>1/2</answer>", "0.5", 1.0),
        ("<answer>5</answer>, though 7 came close", "5", 1.0),
        ("<answer>7</answer>, though 5 came close", "5", 0.0),
        ("#### 5\n", "5", 1.0),
        ("the answer is 5", "5", 1.0),
        ("4-1=3", "3", 1.0),
        (r"\boxed{0.333}", r"\frac{1}{3}", 0.0),
        ("no idea", "5", 0.0),
        ("", "5", 0.0),
        (r"\boxed{\frac{1}{", "5", 0.0),
        ("<answer>true</answer>", "true", 1.0),
        ("<answer>false</answer>", "true", 0.0),
        ("<answer>B</answer>", "B", 1.0),
        (r"\boxed{true}", True, 1.0),
        (r"\boxed{\text{True}}", "true", 1.0),
        (r"\boxed{false}", True, 0.0),
        ("<answer>YES.</answer>", "yes", 1.0),
        (r"\boxed{B.}", "(B)", 1.0),
        (r"\boxed{\text{B}}", "C", 0.0),
        (r"\boxed{\text{B}}", r"\text{C}", 0.0),
        (r"\boxed{\text{kg}}", r"\text{cm}", 0.0),
        (r"\boxed{n}", "n!", 0.0),
        ("<answer>B: 5</answer>", "5", 1.0),
        (r"$x = \boxed{1}$ or $\boxed{2}$", "x = 1, 2", 1.0),
        (r"\boxed{1}, \boxed{2}", "1,2", 1.0),
        (r"$\boxed{\frac{1}{2}}$ and $\boxed{3}$", r"\{3, 0.5\}", 1.0),
        (r"\boxed{1}\text{ and }\boxed{2}", "1,2", 1.0),
        ("\\boxed{1}\n\\boxed{2}", "1,2", 1.0),
        (r"\boxed{1}, \boxed{2}", "1,3", 0.0),
        (r"\boxed{1}, \boxed{2}", "1", 0.0),
        ("The answer is $3.0e8$.", "3e8", 1.0),
        (r"\boxed{x²+√2}", r"\sqrt{2}+x^2", 1.0),
        (r"\boxed{[0, ∞)}", r"[0,\infty)", 1.0),
        (r"\boxed{5}", "", None),
        (r"\boxed{5}", None, None),
        ("None", "None", None),
        (r"\boxed{12\,345}", "12345", 1.0),
        (r"\boxed{12{,}345 x}", "12345x", 1.0),
        (r"So it is \boxed {4}", "4", 1.0),
        (r"So it is \fbox{4}", "4", 1.0),
        (r"\boxed{18}", r"\$18", 1.0),
        (r"\boxed{0.18}", "18%", 1.0),
        (r"\boxed{18}", "18%", 1.0),
        (r"\boxed{0.5}", r"$\frac12$", 1.0),
        (r"\boxed{\frac12}", 0.5, 1.0),
        (r"\boxed{1000}", 1000, 1.0),
        (r"\boxed{0.333333}", r"\frac{1}{3}", 1.0),
        (r"\boxed{0.0000001}", "0.0000002", 0.0),
        (r"\boxed{x + 5}", "5", 0.0),
        (r"\boxed{1, 5}", "5", 0.0),
        (r"\boxed{5, 1}", "1, 5", 1.0),
        (r"\boxed{x = 5}", "5", 1.0),
        (r"\boxed{y = 5}", "x = 5", 0.0),
        ("The answer is \u22125.", "-5", 1.0),
        (r"<think>\boxed{5}</think> It is \boxed{6}", "5", 0.0),
        (r"\boxed{5}</think> It is $6$", "6", 1.0),
        (r"<think>\boxed{5}", "5", 0.0),
        ("<answer>so it is $x^2$.</answer>", "x^2", 1.0),
        (r"\boxed{\text{yes}}", "yes", 1.0),
        ("The answer is x^2 + 5", "5", 0.0),
        ("The answer is x^2 + 5", "x^2+5", 1.0),
        ("y = 2x + 5", "5", 0.0),
        ("so x > 5", "5", 0.0),
        ("It takes 1:30", "30", 0.0),
        (r"\boxed{A) 5}", "5", 1.0),
        (r"It is $\boxed 5$.", "5", 1.0),
        ("The answer is B. 5", "5", 1.0),
        ("#### C: 5", "5", 1.0),
        (r"The answer is \sqrt{5}", r"\sqrt{5}", 1.0),
        ("The answer is 1e3", "1000", 1.0),
        ("The answer is 12 cm^2", "12", 1.0),
        ("so x = 5", "x=5", 1.0),
        ("The final answer is 5. I checked 3 times.", "5", 1.0),
        (r"\boxed{41 = 42}", "42", 0.0),
        (r"\boxed{42 = 42.0}", "42", 1.0),
        (r"\boxed{6 \cdot 7 = 42}", "42", 1.0),
    ],
)
def test_math_compares_by_mathematical_equality(completion, answer, expected):
    assert both(math, completion, answer=[answer]) == expected


@pytest.mark.parametrize(
    ("completion", "answer", "expected"),
    [
        (r"so $x = \boxed{\frac{1}{2}}$, that is 0.5", "0.5", 1.0),
        (r"\boxed{7}, no, \boxed{42}", "42", 1.0),
        (r"\boxed{42}, no, \boxed{7}", "42", 0.0),
        (r"\boxed{42}. Again: \boxed{4", "42", 0.0),
        ("the answer is 42", "42", 0.0),
        ("<answer>42</answer>", "42", 0.0),
        (r"\boxed{42}<|im_end|> What about \boxed{7}?", "42", 1.0),
        (r"<think>\boxed{42}</think> \boxed{7}", "42", 0.0),
        (r"\boxed{0.333333}", r"\frac{1}{3}", 0.0),
        (r"\boxed{9\%}", "9", 0.0),
        (r"\boxed{9\%}", "0.09", 1.0),
        (r"\boxed{42}", "Work.\n#### 42", 1.0),
        (r"\boxed{}", "42", 0.0),
        ("", "42", 0.0),
        (r"\boxed{42}", None, None),
    ],
)
def test_strict_math_takes_the_last_box_alone_and_compares_exactly(completion, answer, expected):
    assert both(strict_math, completion, answer=[answer]) == expected


@pytest.fixture(scope="module")
def chain_sum():
    from cohort.data.load import load_rows

    (row,) = load_rows("reasoning_gym:chain_sum?size=1&seed=3")
    return row


def test_task_asks_the_verifier_of_the_row_s_own_task(chain_sum):
    answer = chain_sum["answer"]
    columns = {name: [chain_sum[name]] for name in ("question", "answer", "metadata")}
    assert both(task, answer, **columns) == 1.0
    assert both(task, f"<answer>{answer}</answer> for sure", **columns) == 1.0
    assert both(task, f"I add and get {answer}", **columns) == 1.0
    wrong = both(task, str(int(answer) + 1), **columns)
    assert wrong < 1.0
    assert both(task, "no idea", **columns) < 1.0
    assert both(task, "", **columns) < 1.0


def test_task_takes_the_last_line_where_the_answer_is_no_number():
    from cohort.data.load import load_rows

    (row,) = load_rows("reasoning_gym:word_sorting?size=1&seed=1")
    columns = {name: [row[name]] for name in ("question", "answer", "metadata")}
    assert both(task, f"I sort them.\n{row['answer']}", **columns) == 1.0
    assert both(task, f"{row['answer']}\nor so", **columns) < 1.0


@pytest.mark.parametrize("text", ["", "abc", "[1,", "2 x", "9" * 400, '{"a": 1}', "[[1, 2], [3]]"])
@pytest.mark.parametrize("name", ["prime_factorization", "boxnet", "coin_flip", "game_of_life"])
def test_task_gives_no_credit_for_what_a_task_s_verifier_cannot_read(name, text):
    from cohort.data.load import load_rows

    (row,) = load_rows(f"reasoning_gym:{name}?size=1&seed=1")
    columns = {key: [row[key]] for key in ("question", "answer", "metadata")}
    assert 0.0 <= both(task, text, **columns) < 1.0
    assert 0.0 <= both(task, f"<answer>{text}</answer>", **columns) < 1.0


def test_partial_credit_is_the_verifiers_own():
    columns = {"question": ["3 + 4 ="], "answer": ["7"], "metadata": [{"source_dataset": "chain_sum"}]}
    assert partial_task(completions=["17"], **columns) == [0.5]
    assert task(completions=["17"], **columns) == [0.0]
    assert partial_task(completions=["7"], **columns) == task(completions=["7"], **columns) == [1.0]


def test_task_mixes_tasks_in_a_batch(chain_sum):
    from cohort.data.load import load_rows

    (other,) = load_rows("reasoning_gym:word_sorting?size=1&seed=1")
    rows = [chain_sum, other]
    columns = {name: [row[name] for row in rows] for name in ("question", "answer", "metadata")}
    assert task(completions=[row["answer"] for row in rows], **columns) == [1.0, 1.0]


def test_length_falls_from_one_to_zero_at_the_limit():
    ids = [[], [1] * 5, [1] * 10, [1] * 20]
    assert shortness(10)(completions=["x"] * 4, completion_ids=ids) == [1.0, 0.5, 0.0, 0.0]


def test_length_without_a_limit_takes_the_generation_budget():
    values = shortness(None)(completions=["x", "x"], completion_ids=[[1] * 2, [1] * 8], max_new_tokens=[8, 8])
    assert values == [0.75, 0.0]


def test_length_counts_words_where_there_are_no_token_ids():
    assert both(shortness(4), "one two", completion_ids=None) == 0.5


def test_length_says_that_it_needs_a_limit():
    with pytest.raises(ValueError, match="length:N"):
        shortness(None)(completions=["x"], completion_ids=None)


def test_rewards_keep_the_order_of_the_batch():
    answers = ["1", "2", "x"]
    assert numeric(completions=["1", "1", "1"], answer=answers) == [1.0, 0.0, None]
    assert exact(completions=["1", chat("2"), "y"], answer=answers) == [1.0, 1.0, 0.0]


def test_the_forms_that_are_listed_are_those_that_are_made():
    for kind in KINDS.values():
        for form in kind.forms:
            argument = form.partition(":")[2]
            if not re.search(r"[A-Z]{3}|[NKR]$", argument):
                assert kind.make(argument) is not None, form
    assert {name for name, kind in KINDS.items() if kind.verifies} >= {"exact", "number", "math", "task"}
