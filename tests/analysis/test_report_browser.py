"""The report of a comparison in a real browser, from its file. Without any Chromium these tests cannot be made."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from cohort.analysis.comparing import analyse
from cohort.analysis.measure import HELD_OUT
from cohort.analysis.report import write_report
from tests.analysis.comparisons import entry
from tests.browser import PATIENCE


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three settings of a method with two seeds, measured on two data sets."""
    root = tmp_path_factory.mktemp("report")
    made = [
        replace(entry(root, f"lr={lr:g}", rates, evaluations=(HELD_OUT, "further")), settings={"lr": lr, "kind": kind})
        for lr, rates, kind in [(1e-5, [0.5, 0.52], "a"), (1e-4, [0.7, 0.72], "b"), (1e-3, [0.3, 0.35], "a")]
    ]
    write_report(root, analyse(made, [HELD_OUT, "further"]))
    return root / "report.html"


@pytest.fixture
def visit(browser: Browser, report: Path) -> Iterator[Callable[..., Page]]:
    """Opens the page; at the end it may have said nothing on the console, and asked nobody for anything."""
    said: list[str] = []
    asked: list[str] = []
    contexts = []

    def visit(**options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(report.as_uri())
        return page

    yield visit
    for context in contexts:
        context.close()
    assert said == []
    assert set(asked) == {report.as_uri()}


def test_every_chart_is_drawn_and_the_legend_hides_and_shows(visit: Callable[..., Page]) -> None:
    page = visit()
    figures = page.locator("figure[data-chart]")
    kinds = {figures.nth(i).get_attribute("data-chart") for i in range(figures.count())}
    assert kinds == {"difference", "setting", "curve", "k", "reliability"}
    assert page.locator("figure[data-chart] > svg").count() == figures.count()
    # A line and a band for every entry, in colours that are not the same.
    curve = page.locator('figure[data-of="held-out accuracy"]')
    strokes = curve.locator('[aria-label="line"] path')
    assert strokes.count() == 3
    colours = {strokes.nth(i).evaluate("path => getComputedStyle(path).stroke") for i in range(3)}
    dashes = {strokes.nth(i).evaluate("path => getComputedStyle(path).strokeDasharray") for i in range(3)}
    assert len(colours) == len(dashes) == 3
    button = page.get_by_role("button", name="lr=0.0001", exact=True).first
    button.click()
    assert curve.locator('[aria-label="line"] path').count() == 2
    assert button.get_attribute("aria-pressed") == "false"
    button.click()
    assert curve.locator('[aria-label="line"] path').count() == 3


def test_curves_change_their_axis_and_say_what_is_under_the_pointer(visit: Callable[..., Page]) -> None:
    page = visit()
    curve = page.locator('figure[data-of="held-out accuracy"]')
    assert "step →" in curve.inner_text()
    page.get_by_label("sampled tokens").check()
    assert "sampled tokens →" in curve.inner_text()
    page.get_by_label("time").check()
    assert "seconds of training →" in curve.inner_text()
    curve.scroll_into_view_if_needed()
    box = curve.locator("svg").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] * 0.3)
    tip = curve.locator('[aria-label="tip"]').text_content() or ""
    assert re.search(r"lr=\S+ %? ?.*\d %.*at \d", tip.replace("\u200b", " ")), tip


def test_a_table_sorts_by_the_column_that_is_pressed(visit: Callable[..., Page]) -> None:
    page = visit()
    table = page.locator("table.sorts").first

    def order() -> list[str]:
        return table.locator("tbody th").all_inner_texts()

    head = table.get_by_role("button", name="pass@1, %")
    head.click()
    assert order() == ["lr=0.0001", "lr=1e-05", "lr=0.001"]
    assert table.locator('th[aria-sort="descending"]').inner_text().startswith("pass@1")
    head.click()
    assert order() == ["lr=0.001", "lr=1e-05", "lr=0.0001"]
    # Numbers of settings sort as numbers.
    table.get_by_role("button", name="lr", exact=True).click()
    assert order() == ["lr=0.001", "lr=0.0001", "lr=1e-05"]


def test_it_fits_a_phone_follows_the_dark_and_prints_light(visit: Callable[..., Page]) -> None:
    page = visit(viewport={"width": 360, "height": 740}, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert all(box["width"] <= 360 for svg in page.locator("figure > svg").all() if (box := svg.bounding_box()))

    def light(selector: str, what: str) -> float:
        rgb = page.evaluate("([s, w]) => getComputedStyle(document.querySelector(s))[w]", [selector, what])
        return sum(int(part) for part in rgb.removeprefix("rgb(").removesuffix(")").split(","))

    assert light("body", "backgroundColor") < 150 < 600 < light("body", "color")
    page.emulate_media(media="print")
    assert light("body", "backgroundColor") == 765
    assert light("body", "color") == 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
