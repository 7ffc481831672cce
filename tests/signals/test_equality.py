"""Mathematical equality in a process of its own: what is rounded, and what would take forever."""

from __future__ import annotations

import threading

import pytest

from cohort.signals import equality
from cohort.signals.equality import equal, readable


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\frac{1}{2004!}", r"\frac{1}{2006!}"),
        (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}"),
        (r"\frac{\sqrt{2}}{2^{99}}", r"\frac{\sqrt{2}}{2^{98}}"),
        (r"e^{-100}", r"e^{-101}"),
        (r"\frac{x}{2^{99}}", r"\frac{x}{2^{98}}"),
        (r"(1, \frac{1}{2^{99}})", r"(1, \frac{1}{2^{98}})"),
        (r"\{1, \frac{1}{2^{99}}\}", r"\{1, \frac{1}{2^{98}}\}"),
        (r"[0, \frac{1}{2^{99}}]", r"[0, \frac{1}{2^{98}}]"),
        (r"x = \frac{1}{2^{99}}", r"x = \frac{1}{2^{98}}"),
        (r"x < \frac{1}{2^{99}}", r"x < \frac{1}{2^{98}}"),
        ("0.00000012", "0.00000013"),
    ],
)
def test_what_differs_by_little_is_not_equal(one, other):
    assert not equal(f"${one}$", (f"${other}$",))
    assert equal(f"${one}$", (f"${one}$",))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"x^2+2x+1", "(x+1)^2"),
        (r"\sqrt{x^2}", "|x|"),
        (r"\sqrt{2}+\sqrt{3}", r"\sqrt{5+2\sqrt{6}}"),
        (r"\log_2 8", "3"),
        (r"e^{-100}", r"\frac{1}{e^{100}}"),
        (r"\frac{1}{3}", "0.333333"),
        (r"(1, 0.333333)", r"(1, \frac13)"),
        ("9", r"9\%"),
        ("3+4i", "4i+3"),
        (r"\infty", r"\infty"),
        (r"\tan^{-1}(1)", r"\frac{\pi}{4}"),
        ("y=2x+1", "y=1+2x"),
        ("abc", "abc"),
        (r"0.1x", r"\frac{x}{10}"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ],
)
def test_what_is_written_otherwise_is_equal(one, other):
    assert equal(f"${one}$", (f"${other}$",))


@pytest.mark.parametrize("pathological", ["10^{10^{10}}", "9!!!!"])
def test_what_would_take_forever_is_not_equal_and_the_next_answer_is_read(pathological):
    assert not equal("$5$", (f"${pathological}$",))
    assert equal("$5$", (r"$\sqrt{25}$",))


def test_deep_nests_are_no_formula_to_stumble_over():
    assert not equal("$5$", ("$" + "(" * 3000 + "1" + ")" * 3000 + "$",))
    assert readable(("$5$",))


def test_it_is_asked_from_any_thread_and_starts_again_when_its_process_is_gone():
    assert readable((r"it is $\frac{1}{7}$",))
    equality.close()
    found = []
    asked = [threading.Thread(target=lambda n=n: found.append(equal(f"${n}$", (f"${n}.0$",)))) for n in range(4)]
    for each in asked:
        each.start()
    for each in asked:
        each.join()
    assert found == [True] * 4


def test_a_formula_is_readable_or_not():
    assert not readable(("no formula",))
    assert not readable(())
