"""Any number in any spelling is read as that number, and no formula or text is."""

from __future__ import annotations

import time
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cohort.signals.numbers import last_number, number, plain

DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**12), max_value=10**12)


def grouped(value: Decimal, separator: str, point: str = ".") -> str:
    """The decimal with its thousands separated."""
    return f"{value:,f}".translate(str.maketrans({",": separator, ".": point}))


@st.composite
def spellings(draw):
    """(a number, one of its spellings)."""
    value = draw(DECIMALS)
    kind = draw(st.integers(0, 7))
    if kind == 0:
        separator = draw(st.sampled_from([",", " ", "_", "'", "{,}", r"\,", r"\ ", "\u00a0", "\u202f", "\u2009"]))
        text = grouped(value, separator)
    elif kind == 1:
        # With a single group and no decimals it would be a decimal.
        assume(abs(value) >= 1000)
        text = grouped(value, ".", ",")
    elif kind == 2:
        text = f"{value:e}"
    elif kind == 3:
        mantissa, power = f"{value:e}".split("e")
        times = draw(st.sampled_from([r" \times ", " \u00d7 ", r"\cdot ", "*", " x "]))
        text = f"{mantissa}{times}10^{draw(st.sampled_from(['{%s}', '%s' if int(power) >= 0 else '{%s}']))}" % int(
            power
        )
    elif kind == 4:
        under = draw(st.integers(1, 999))
        form = draw(st.sampled_from([r"\frac{%d}{%d}", r"\dfrac{%d}{%d}", "%d/%d", "%d / %d"]))
        sign = "-" if value < 0 else ""
        return Fraction(int(value), under), sign + form % (abs(int(value)), under)
    else:
        text = f"{value:f}"
    if text.startswith("-"):
        text = draw(st.sampled_from(["-", "\u2212", "- "])) + text[1:]
    return Fraction(value), text


SNIPPETS = [
    "12",
    "3",
    " ",
    ",",
    ".",
    "000",
    "1",
    "/",
    r"\frac",
    "{",
    "}",
    r"\text{",
    " cm",
    "^2",
    "e3",
    "10^",
    "x",
    "=",
    "$",
    "-",
    "%",
    "(",
    ")",
    r"\,",
    r"\times ",
    "half",
    " or ",
    "\u00bd",
    "\u00b2",
    "\u2212",
    "**",
    "so ",
    "\n",
]
AROUND = ["%s", "$%s$", r"\(%s\)", "$$%s$$", "**%s**", r"\boxed{%s}", "(%s)", " %s.", "x = %s", "$x=%s$", "so it is %s"]
UNITS = ["", "%", r"\%", r" \text{ cm}", r" \text{ cm}^2", r"\mathrm{kg}", " dollars", r"^\circ", "\u00b0", " km/h"]


@settings(deadline=None, max_examples=400)
@given(spellings(), st.sampled_from(AROUND), st.sampled_from(UNITS))
def test_a_number_in_any_spelling_is_read_as_that_number(spelling, around, unit):
    value, text = spelling
    # In brackets it may be a pair.
    assume(around != "(%s)" or "," not in text)
    text = around % (text + unit)
    assert number(text) == value
    assert number(plain(value)) == value
    assert last_number(f"There were 3 of 17, and now: {text}") == value


FORMULA = [
    "%s + %s",
    "%s - %s",
    "%sx",
    "%s x",
    "x^%s",
    "%s^2",
    r"\sqrt{%s}",
    r"%s\pi",
    "%s!",
    "(%s, %s)",
    "[%s, %s)",
    "%s:%s",
    "%s,%s,%s",
    "x + %s",
    "2x = %s",
    "%s * %s",
    r"%s \cdot y",
    r"\frac{x}{%s}",
    "x > %s",
    r"x \le %s",
    r"\log_2 %s",
    "|-%s|",
    "f(%s)",
    "x%s",
    "sqrt(%s)",
    r"\binom{%s}{2}",
    "%s-%s",
    r"%s \pm 1",
    "%s or %s",
    r"\begin{pmatrix}%s\\%s\end{pmatrix}",
    "%s^{10^{10}}",
]


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(FORMULA), st.lists(st.integers(2, 99), min_size=3, max_size=3), st.sampled_from(AROUND[:6]))
def test_a_formula_is_never_read_as_a_number(form, values, around):
    assert number(around % (form % tuple(values[: form.count("%s")]))) is None


@settings(deadline=None)
@given(st.text())
def test_any_text_can_be_searched(text):
    for value in (number(text), last_number(text)):
        assert value is None or number(plain(value)) == value


@settings(deadline=None, max_examples=300)
@given(
    st.text(st.sampled_from("0123456789.,e^{}()[]/*- $%_'=x!<>;:\n\\"))
    | st.lists(st.sampled_from(SNIPPETS)).map("".join)
)
def test_what_looks_like_numbers_can_be_searched(text):
    for value in (number(text), last_number(text)):
        assert value is None or number(plain(value)) == value


@pytest.mark.parametrize(
    "text", ["9" * 4000 + "e4000", "1/" + str(2**13_000), "-1e-4000", "9" * 5000, "1/" + "9" * 5000]
)
def test_numbers_of_many_digits_are_compared_and_written_or_are_none(text):
    value = number(text)
    if value is not None:
        assert Fraction(Decimal(plain(value))) == value == number(text + ".")


LONG = 50_000


@pytest.mark.parametrize(
    "text",
    [
        "9" * LONG,
        "(" * LONG,
        "{" * LONG,
        r"\text{" * 10_000,
        "(" + ", " * LONG,
        "1 " * LONG,
        r"\frac{1}{" * 10_000,
        "x = " * 20_000,
        " " * LONG,
        "5" + " " * LONG + "x",
        "__x" * 20_000,
        "**x" * 20_000,
        "." * LONG,
        "a" * LONG + "(",
        "a-" * LONG + "(",
        "[1, " * 20_000,
        "5% " * 20_000,
        "1,111" * 20_000,
        "5^" * LONG,
        "\\" * LONG,
        "\u00bd" * 20_000,
        "9" * 7000 + "x",
    ],
    ids=lambda text: text[:8].strip() or "space",
)
def test_a_long_text_is_read_in_time_that_grows_with_its_length(text):
    start = time.process_time()
    assert number(text) is None
    last_number(text)
    # A tenth of a second in fact; hours where a pattern goes back and forth.
    assert time.process_time() - start < 20
