"""Numbers in every spelling, and formulas, which are none."""

from __future__ import annotations

import time
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cohort.signals.numbers import last_number, number, plain, tidy

NUMBERS = [
    ("42", "42"),
    (" 42. ", "42"),
    ("-42", "-42"),
    ("+42", "42"),
    ("−5", "-5"),
    ("- 5", "-5"),
    ("$42", "42"),
    ("-$42", "-42"),
    ("$-5", "-5"),
    ("\\$18", "18"),
    ("18%", "18"),
    ("5\\%", "5"),
    ("1,234", "1234"),
    ("-1,234,567.5", "-1234567.5"),
    ("1e3", "1000"),
    ("1e-4", "0.0001"),
    ("1.5E+10", "15000000000"),
    ("10^2", "100"),
    ("10^{3}", "1000"),
    ("10**3", "1000"),
    ("3 \\times 10^4", "30000"),
    ("3×10⁴", "30000"),
    ("3 x 10^4", "30000"),
    ("3*10^4", "30000"),
    ("3 \\cdot 10^{-4}", "0.0003"),
    ("10⁻³", "0.001"),
    ("12{,}000", "12000"),
    ("12\\,000", "12000"),
    ("12 000", "12000"),
    ("12\xa0000", "12000"),
    ("12\u202f000", "12000"),
    ("1_000", "1000"),
    ("1'000", "1000"),
    ("12,\\!000", "12000"),
    ("1.234,5", "1234.5"),
    ("1.234.567", "1234567"),
    ("1 234,5", "1234.5"),
    ("\\frac{1}{2}", "0.5"),
    ("\\dfrac{1}{2}", "0.5"),
    ("-\\frac{1}{2}", "-0.5"),
    ("\\frac12", "0.5"),
    ("\\frac{-1}{2}", "-0.5"),
    ("2\\frac{1}{2}", "2.5"),
    ("2 1/2", "2.5"),
    ("2½", "2.5"),
    ("½", "0.5"),
    ("1/3", "1/3"),
    ("1/2", "0.5"),
    ("$\\frac12$", "0.5"),
    ("\\frac1{2}", "0.5"),
    ("\\frac{1}2", "0.5"),
    ("**42**", "42"),
    ("*42*", "42"),
    ("`42`", "42"),
    ("\\textbf{42}", "42"),
    ("\\mathbf{42}", "42"),
    ("\\text{42}", "42"),
    ("{42}", "42"),
    ("$42$", "42"),
    ("\\(42\\)", "42"),
    ("\\[42\\]", "42"),
    ("$$42$$", "42"),
    ("12 \\text{ cm}^2", "12"),
    ("12 \\text{ cm}", "12"),
    ("12\\mathrm{km}", "12"),
    ("12 cm^2", "12"),
    ("12cm", "12"),
    ("12 cm²", "12"),
    ("3 apples", "3"),
    ("5 dollars", "5"),
    ("90^\\circ", "90"),
    ("90^{\\circ}", "90"),
    ("90°", "90"),
    ("20°C", "20"),
    ("90 degrees", "90"),
    ("5 m/s", "5"),
    ("60 km/h", "60"),
    ("5 m", "5"),
    ("5 \\text{ m}", "5"),
    ("5 \\text{ m/s}^2", "5"),
    ("9.8 \\text{ m}/\\text{s}^2", "9.8"),
    ("3 \\text{ square meters}", "3"),
    ("x = 5", "5"),
    ("x=5", "5"),
    ("$x = 5$", "5"),
    ("5 = x", "5"),
    ("\\text{total} = 5", "5"),
    ("f(2) = 5", "5"),
    ("x_1 = 5", "5"),
    ("2+3=5", "5"),
    ("the answer is 5", "5"),
    ("The answer is 5.", "5"),
    ("x ≈ 3.14", "3.14"),
    ("AB = 5", "5"),
    ("\\angle ABC = 60^\\circ", "60"),
    ("3 million", "3000000"),
    ("5k", "5000"),
    ("$2.5 million", "2500000"),
    ("-0", "0"),
    ("-0.0", "0"),
    ("0.50", ".5"),
    (".5", ".5"),
    ("-.5", "-.5"),
    ("5.", "5"),
    ("007", "7"),
    ("１２", "12"),
    ("١٢", "12"),
    ("(5)", "5"),
    ("(-5)", "-5"),
    ("[5]", "5"),
    ("1208925819614629174706176", "1208925819614629174706176"),
    ("4th", "4"),
    ("negative 5", "-5"),
    ("€5", "5"),
    ("5 €", "5"),
    ("5 USD", "5"),
    ("US$5", "5"),
    ("25-year-old", "25"),
    ("Answer: 42", "42"),
    ("$1,250.00", "1250"),
    ("\\boxed{42}", "42"),
    ("about 12 hours", "12"),
    ("1,000 km", "1000"),
    ("\\frac{12{,}000}{7}", "12000/7"),
    ("\\frac{1,000}{4}", "250"),
    ("≈ 5", "5"),
    ("~5", "5"),
    ("5 × 10^3 kg", "5000"),
    ("12°", "12"),
    ("3.0 × 10⁸ m/s", "300000000"),
    ("6 sq ft", "6"),
    ("5 ft", "5"),
]
MORE_NUMBERS = [
    (r"7^{\text{th}}", "7"),
    (r"7\text{th}", "7"),
    (r"9.8\,\mathrm{m\,s^{-2}}", "9.8"),
    (r"5\,\Omega", "5"),
    (r"5\,\mu\text{m}", "5"),
    (r"\text{(B) } 12", "12"),
    (r"\textbf{(B) } 12", "12"),
    (r"3\tfrac{1}{2}", "3.5"),
    (r"\text{50 percent}", "50"),
    (r"\left(\frac{1}{2}\right)", "0.5"),
    (r"25\,\mathrm{cm^2}", "25"),
    (r"1.2 \times 10^{5} \text{ J}", "120000"),
    ("12.000,50", "12000.5"),
]
FORMULAS = [
    r"5_{10}",
    "101_2",
    "n=5, k=3",
    "y = 2x + 5",
    r"5 \pmod{7}",
    r"\frac{1}{2}\pi",
    r"5\cdot 3",
    r"\lfloor 5.5 \rfloor",
    r"\pm 5",
    r"3 \times \text{the base}",
    r"2 \cdot \text{area}",
    r"\text{half} \times 3",
    "10^{10^{2}}",
    r"\ln 5",
    "1{,}5",
    "12:30 pm",
    "A5",
    r"(5, \infty)",
    "",
    "abc",
    "4-1",
    "3,5,7",
    "3, 5, 7",
    "-2,1",
    "12,34",
    "1,2345",
    "3,14",
    "0,123",
    "nan",
    "Infinity",
    "inf",
    "10-20",
    "10–20",
    "1:30",
    "3:4",
    "2024-01-05",
    "1/2/2024",
    "v1.2.3",
    "x2",
    "2x",
    "5x",
    "3xy",
    "2ab",
    "5 x",
    "x^2",
    "2^10",
    "2\\pi",
    "2π",
    "2 pi",
    "\\sqrt{5}",
    "sqrt(5)",
    "√5",
    "5√2",
    "3\\sqrt{2}",
    "5!",
    "|5|",
    "-|5|",
    "\\sin 30",
    "sin(30)",
    "sin 30",
    "\\log_2 8",
    "f(5)",
    "C_5",
    "\\binom{5}{2}",
    "5 \\cdot x",
    "x+5",
    "x + 5",
    "5 + 3i",
    "3i",
    "(-\\infty, 5]",
    "[0, 5)",
    "(1,2)",
    "(1, 2)",
    "x > 5",
    "x < 5",
    "x \\le 5",
    "≥ 5",
    "5 ± 0.1",
    "5 \\pm 1",
    "\\begin{pmatrix}1\\\\2\\end{pmatrix}",
    "\\begin{pmatrix}5\\end{pmatrix}",
    "x = 3, y = 5",
    "x = 3 or x = 5",
    "5 or 6",
    "2x = 10",
    "x + 3 = 5",
    "5²",
    "x² = 5²",
    "5 plus 3",
    "5 squared",
    "3 of 5",
    "3 out of 5",
    "2 and a half",
    "12 hours and 30 minutes",
    "5 mod 7",
    "10^{10^{10}}",
    "10^10^10",
    "1e5e3",
    "1e99999999999",
    "1e100000000",
    "\\frac{1}{0}",
    "1/0",
    "5/",
    "\\frac{x}{2}",
    "\\frac{\\sqrt{3}}{2}",
    "2*3",
    "2·3",
    "6/2*3",
    "e^2",
    "2e",
    "1/2/3",
    "5^",
    "0x1F",
    "{1,2}",
    "\\{5\\}",
    "\\{1,2\\}",
    "(A) 5 and 6",
    "1.2.3",
    "$3$ and $4$",
    "5;6",
    "5\n6",
    "log 5",
    "5 times 3",
    "2 to 3",
    "1 2",
    "12 0000",
    "12 00",
    "3 1000",
    "1,00,000x",
    "--5",
    "5-",
    "1/2 + 1/3",
    "A = 5 or 6",
    "0.\\overline{3}",
    "5 : 6",
]
TEXTS = [
    ("first 3, then 12", "12"),
    ("it is -5.", "-5"),
    ("x=-5", "-5"),
    ("$1,234.50 in all", "1234.50"),
    ("the answer is 5.", "5"),
    ("25%", "25"),
    ("4-1=3", "3"),
    ("5-9=-4", "-4"),
    ("4-1=3+8=11", "11"),
    ("maybe 9", "9"),
    ("I add and get 12", "12"),
    ("It has a 5", "5"),
    ("so it is 5!", "5"),
    ("答えは１２です", "12"),
    ("答案是12。", "12"),
    ("это 5", "5"),
    ("COVID-19", "19"),
    ("- 5 apples", "5"),
    ("Total: 5", "5"),
    ('{"answer": 5}', "5"),
    ("A = \\pi r^2 = 78.5", "78.5"),
    ("In 2020, 5 apples", "5"),
    ("The answer is 1.234,5", "1234.5"),
    ("The answer is 12 000", "12000"),
    ("The answer is 1e3", "1000"),
    ("So the value is $\\frac{3}{4}$.", "0.75"),
    ("She pays $1,250.00.", "1250"),
    ("= 5", "5"),
    ("x = 5, so y = 7", "7"),
    ("(see 3) so 4", "4"),
    ("Therefore, **18**", "18"),
    ("answer is 5 (five)", "5"),
    ("It is -$5.", "-5"),
    ("2 + 3 is 5", "5"),
    ("He has 10-foot walls", "10"),
    ("so $x$ is $5$", "5"),
    ("the 4th", "4"),
    ("2x = 10 → x = 5", "5"),
    ("5/8 of the cake", "5/8"),
]
TEXTS_WITHOUT = [
    "It takes 1:30",
    "2024-01-05",
    "v1.2.3",
    "10-20",
    "x² = 5²",
    "4-1",
    "2+3",
    "5 - 9",
    "(2+1)-7",
    "12,3456",
    "3,5,7",
    "no number",
    "",
    "-",
    "$",
    "the set (-\\infty, 5]",
    "I get x > 5",
    "so 2x",
    "= \\sqrt{5}",
    "from 3 to 5",
]


@pytest.mark.parametrize(("text", "value"), NUMBERS + MORE_NUMBERS)
def test_a_number_is_read_in_every_spelling(text, value):
    assert number(text) == Fraction(value)


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_a_list_or_a_text_of_several_numbers_is_no_number(text):
    assert number(text) is None


@pytest.mark.parametrize(("text", "value"), TEXTS)
def test_the_last_number_of_a_text_is_found(text, value):
    assert last_number(text) == Fraction(value)


@pytest.mark.parametrize("text", TEXTS_WITHOUT)
def test_the_end_of_a_formula_is_not_taken_for_the_number_of_a_text(text):
    assert last_number(text) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("5", "5"),
        ("5.00", "5"),
        ("-0.0", "0"),
        ("0", "0"),
        ("100", "100"),
        ("1E+3", "1000"),
        ("-2.50", "-2.5"),
        ("0.1", "0.1"),
        ("0.0625", "0.0625"),
        ("1/3", "1/3"),
        ("-4/6", "-2/3"),
        ("123456789012345678901234567890123", "123456789012345678901234567890123"),
    ],
)
def test_plain_has_no_exponent_no_trailing_zeros_and_all_digits(value, expected):
    assert plain(Fraction(value)) == expected
    if "/" not in value:
        assert plain(Decimal(value)) == expected


def test_tidy_joins_thousands_and_writes_signs_in_ascii():
    assert tidy("\u221212\\,000{,}000 + 3\u202f000x") == "-12000000 + 3000x"


# any number ----------------------------------------------------------------------------------------------------------

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
