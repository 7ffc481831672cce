"""Formulas in boxes: as text, by value, by a model; and letters, which no model is asked about."""

from __future__ import annotations

from cohort.rewards.formulas import boxed_answer, checked, formula, normalised, verified


def test_spelling_is_no_difference():
    assert normalised(r" $\dfrac{P}{N_0}\, \text{SNR}.$ ") == r"\frac{P}{N_0}SNR"
    assert normalised(r"\left(x\right) \leftarrow y.") == r"(x)\leftarrowy"


def test_values_are_compared_where_texts_differ():
    texts = [r"\boxed{P/N_0}", r"\boxed{P/N_1}", r"\boxed{\log_2(1+s)}", r"\boxed{\frac{P}{N_0}} and \boxed{", "P/N_0"]
    golds = [r"\frac{P}{N_0}", r"\frac{P}{N_0}", r"\frac{\ln(1+s)}{\ln 2}", r"\frac{P}{N_0}", "P/N_0"]
    assert formula(completions=texts, answer=golds) == [1.0, 0.0, 1.0, 0.0, 0.0]
    assert formula(completions=texts[:1], answer=[None]) == [None]


def test_letters_are_compared_where_the_row_says_so():
    texts = [r"\boxed{(b)}", r"\boxed{B: 5}", r"\boxed{B and C}"]
    assert formula(completions=texts, answer=["B"] * 3, type=["mcq"] * 3) == [1.0, 0.0, 0.0]


def test_a_model_is_asked_once_of_what_is_still_open():
    asked = []

    def ask(pairs):
        asked.append(pairs)
        return [1] * len(pairs)

    texts = [r"\boxed{SNR}", r"\boxed{SNR}", r"\boxed{x}", r"\boxed{C}", ""]
    golds, kinds = ["\\gamma", "\\gamma", "x", "B", "x"], ["fill", "fill", "equation", "mcq", "fill"]
    assert verified(texts, golds, kinds, ask) == ([1.0, 1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0, 0.0])
    assert asked == [[("\\gamma", "SNR")]]
    assert verified(texts, golds, kinds)[1] == [0.0, 0.0, 1.0, 0.0, 0.0]


def test_a_box_that_holds_nothing_is_none():
    assert boxed_answer(completions=[r"\boxed{1}", r"\boxed{ $\,$ }", r"\boxed{1", "1"]) == [1.0, 0.0, 0.0, 0.0]
    assert checked(r"\boxed{\text{}}", "1").right is False
