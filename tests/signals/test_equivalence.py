"""Equivalence of answers: what is written otherwise is equal, what is something else is not, and both ways round."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.signals import equality
from cohort.signals.equivalence import equivalent
from cohort.signals.latex import spelled

EQUAL = [
    (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt3}"),
    (r"\log_2(1+\gamma)", r"\frac{\ln(1+\gamma)}{\ln 2}"),
    ("1 1/2", "1.5"),
    (r"-1\frac12", "-1.5"),
    ("1e-3", "0.001"),
    ("12 345", "12,345"),
    ("2004!/2003!", "2004"),
    (r"\frac{x^2-1}{x-1}", "x+1"),
    (r"\sqrt{x^2}", "|x|"),
    (r"2\cos^2x-1", r"\cos 2x"),
    ("0", r"\sqrt{2}+\sqrt{3}-\sqrt{5+2\sqrt{6}}"),
    (r"\arctan 1", r"\frac{\pi}{4}"),
    (r"\sum_{k=1}^{10} k", "55"),
    (r"e^{2\pi i}", "1"),
    (r"3\sin 30^\circ", r"\frac32"),
    (r"7.5\%", "0.075"),
    ("10 percent", "10%"),
    ("5 million", "5000000"),
    ("sqrt(2)/2", r"\frac{1}{\sqrt{2}}"),
    ("x = 6*7 = 42", "42"),
    ("6*7=42", "42"),
    (r"\text{Area} = 5", "5"),
    ("x=2,y=3", "y=3,x=2"),
    (r"x_1=1,\ x_2=3", "3, 1"),
    (r"1\pm\sqrt2", r"\{1-\sqrt{2}, 1+\sqrt{2}\}"),
    (r"\{1\}", "1"),
    ("100,200", r"\{200, 100\}"),
    ("2x+4y=6", "x+2y=3"),
    ("x^2+y^2=1", "y^2+x^2-1=0"),
    ("3-x>y", "x+y<3"),
    ("|x-1|<2", "(-1,3)"),
    ("x>1 and x<3", "(1,3)"),
    (r"x<-1\text{ or }x>1", r"(-\infty,-1)\cup(1,\infty)"),
    (r"\mathbb{R}\setminus\{0\}", r"x\ne 0"),
    (r"(-\infty, \frac{3}{2}]", r"x\le 1.5"),
    (r"\emptyset", r"\varnothing"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\left(\begin{array}{c}1\\2\end{array}\right)"),
    ("1:2:3", "2:4:6"),
    ("500 cm", "5 m"),
    (r"3\text{ m/s}", r"10.8\,\mathrm{km/h}"),
    (r"45^\circ", r"\frac{\pi}{4}\text{ rad}"),
    ("5 apples", "5"),
    ("$5", "5 dollars"),
    ("(A) 12", "12"),
    ("A", "(a)"),
    ("no solution", r"\text{No solution}"),
    (r"\vec{v}", r"\vec v"),
]
OTHERS = [
    ("", ""),
    ("", "42"),
    ("42", "4 2"),
    ("42", "42k"),
    ("42", "41=42"),
    ("42", "42,43"),
    ("42", r"42\text{ or not}"),
    ("42", r"42 \text{ minus one}"),
    ("42", "__import__('os').system('true') or 42"),
    ("42", "[0, 100]"),
    ("42", r"\infty"),
    ("5", "5 squared"),
    ("25", "25 minutes 30 seconds"),
    ("x", "x=x"),
    ("x", "X"),
    ("P/N_0", "p/N_0"),
    ("f'(x)", "f(x)"),
    (r"\sqrt{x^2}", "x"),
    ("x^2", "x^2+0.0000001"),
    (r"\frac{1}{3}", "0.333333"),
    (r"\pi", "22/7"),
    ("9", "9%"),
    ("0.1", "0.10000000000000000001"),
    ("0", r"10^{-30}"),
    ("e^{-1000}", "e^{-1001}"),
    (r"\frac{1}{2004!}", r"\frac{1}{2006!}"),
    ("3", "3i"),
    ("x=2,y=3", "x=3,y=2"),
    ("x=3", "y=3"),
    ("x>3", "y>3"),
    (r"x+y<3", r"x+y\le 3"),
    ("x+y<3", "x+y>3"),
    ("x<1 and x>3", r"(-\infty,1)\cup(3,\infty)"),
    (r"\{1,2\}", "(1,2)"),
    ("[1,2]", "(1,2)"),
    (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}2&1\end{pmatrix}"),
    ("1:2:3", "1:2:4"),
    ("2x+4y=6", "x+2y=4"),
    ("5 m", "5 s"),
    ("5 m", "5 cm"),
    ("$5", "5 euros"),
    ("5 apples", "5 oranges"),
    ("B", "A, B"),
    ("B", r"\text{not B}"),
    ("listen", "silent"),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_what_is_written_otherwise_is_equivalent(one, other):
    assert equivalent(one, other)
    assert equivalent(other, one)


@pytest.mark.parametrize(("one", "other"), OTHERS)
def test_what_is_something_else_is_not(one, other):
    assert not equivalent(one, other)
    assert not equivalent(other, one)


@settings(deadline=None, max_examples=20)
@given(st.text(alphabet=r"01x,.=<(){}[]\^ abfrctext", max_size=30))
def test_any_text_can_be_compared_and_is_itself(text):
    assert equivalent(text, text) == (spelled(text) != "")
    assert not equivalent(text, "7919")
    assert not equivalent("7919", text)


def test_it_is_asked_in_a_process_of_its_own_and_remembers():
    assert equality.equivalent(r"\frac12", "0.5")
    assert not equality.equivalent("42", "41=42")
    assert equality.equivalent("42", "42.0")
