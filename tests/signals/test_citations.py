"""Citations and quotations."""

from __future__ import annotations

import pytest

from cohort.signals.citations import cited, known_share, quotations, quoted_share

SOURCES = ["The tower is 330 metres tall.", "It was finished in 1889, after two years."]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("tall [1], old [2][3]", [1, 2, 3]),
        ("both [1, 3; 4]", [1, 3, 4]),
        ("all [2-4] of them", [2, 3, 4]),
        ("x[i] and [a1] and [] and (1)", []),
        ("[1-9999]", list(range(1, 102))),
    ],
)
def test_what_is_cited(text, numbers):
    assert cited(text) == numbers


def test_quotations_stand_in_the_source_that_is_cited():
    assert quotations('He says "330 metres" [1] and "none".') == [("330 metres", [1])]
    right = 'It is "330 metres tall" [1]. It was “finished ... two years” [1][2].'
    assert quoted_share(right, SOURCES) == 1.0
    assert quoted_share('"330 metres tall" [2]', SOURCES) == 0.0
    assert quoted_share('"33 metres" [1], "the TOWER is" [1].', SOURCES) == 0.5
    assert quoted_share("no quotation [1]", SOURCES) == 0.0
    assert quoted_share('"tall" [7]', SOURCES) == 0.0


def test_citations_of_what_is_not_there_are_counted():
    assert known_share("[1] [2] [3] [0]", 2) == 0.5
    assert known_share("none", 2) == 0.0
