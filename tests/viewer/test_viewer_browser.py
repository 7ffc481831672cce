"""The viewer in a real browser: what a user sees, clicks and types. Without any Chromium these tests cannot be made."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect

from cohort.viewer.run_index import RunIndex
from cohort.viewer.server import application, listen
from tests.analysis.stored_run import metrics_row, write_run
from tests.browser import PATIENCE

HOSTILE = "<img src=x onerror=\"document.title='taken'\"><b>bold</b>"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two whole runs, of which one goes on, one that is broken, one of a chat that was seldom rewarded, and one without
    rollouts; a completion is hostile."""
    root = tmp_path_factory.mktemp("runs")
    write_run(root / "base", recorded=2)
    write_run(root / "going", method="gtpo", steps=6, seed=1, lr=3e-5, finished=False)
    path = write_run(root / "broken", steps=2) / "rollouts" / "step-000002.parquet"
    path.write_bytes(path.read_bytes()[:-60])
    path = root / "base" / "rollouts" / "step-000004.parquet"
    table = pq.read_table(path)
    for name in ("completion", "prompt"):
        texts = [HOSTILE, *table[name].to_pylist()[1:]]
        table = table.set_column(table.column_names.index(name), name, pa.array(texts))
    pieces = table["pieces"].to_pylist()
    pieces[0][:2] = [HOSTILE, "\n"]
    pq.write_table(table.set_column(table.column_names.index("pieces"), "pieces", pa.array(pieces)), path)
    write_chat(root / "odd")
    write_episodes(root / "talk")
    write_many(root / "many")
    shutil.rmtree(write_run(root / "bare", steps=3) / "rollouts")
    return root


def write_episodes(folder: Path) -> None:
    """A run of one step, whose rollouts have two turns: a call with its result, and an answer after a rebuilt context."""
    path = write_run(folder, steps=1, groups=2) / "rollouts" / "step-000001.parquet"
    table = pq.read_table(path)
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "text": HOSTILE}}}
    first = [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "name": "add", "content": "x" * 2000},
    ]
    turns = [
        {"start": 0, "end": 3, "reward": -0.5, "messages": json.dumps(first), "context": None},
        {
            "start": 4,
            "end": 6,
            "reward": None,
            "messages": '[{"role": "assistant", "content": "3"}]',
            "context": HOSTILE,
        },
    ]
    table = table.append_column("turns", pa.array([turns] * table.num_rows))
    ends = ["turns", "failed", *["done"] * (table.num_rows - 2)]
    pq.write_table(table.append_column("end", pa.array(ends)), path)


def write_many(folder: Path, steps: int = 12) -> None:
    """A run of two ranks and two workers that sample up to two versions ahead, of which one dies in step 6."""
    write_run(folder, steps=steps)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        step = row["step"]
        shares = {0: 1.0} if step == 1 else {0: 0.25, 1: 0.75} if step == 2 else {0: 0.25, 1: 0.25, 2: 0.5}
        row |= {f"rollouts/age/{age}": share for age, share in shares.items()}
        row |= {
            "rollouts/age_mean": sum(age * share for age, share in shares.items()),
            "rollouts/age_max": max(shares),
            "queue/depth": 2 + step % 3,
            "queue/in_flight": 6 - step % 3,
            "time/wait_rollouts": 0.1 + 0.05 * (step == 6),
            "time/wait_trainer": 0.4 - 0.1 * (step == 6),
            "engine/workers": 1 if step == 6 else 2,
            "engine/restarts": int(step > 6),
            "engine/redrawn": 5 * int(step >= 6),
            "engine/transfer_seconds": 0.02,
            "engine/transfer_bytes": 2.4e6,
            "engine/tokens_per_second/ray-0": 900 + 10 * step,
            "engine/tokens_per_second/ray-1": 0 if step == 6 else 880 + 5 * step,
            "mismatch/engine": 1e-7,
            "mismatch/staleness": 0.004 + 0.0005 * step,
            "ranks/size": 2,
            "ranks/imbalance": 1.1,
            "ranks/idle": 0.06,
        }
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "rollouts" / "step-000004.parquet"
    table = pq.read_table(path)
    masks = table["mask"].to_pylist()
    ages = [[0 if not chosen else 2 if i < 4 else 1 for i, chosen in enumerate(mask)] for mask in masks]
    versions = [
        [0 if not chosen else 3 - age for age, chosen in zip(*each, strict=True)]
        for each in zip(ages, masks, strict=True)
    ]
    for name, values in {"version": versions, "age": ages}.items():
        table = table.append_column(name, pa.array(values, pa.list_(pa.int32())))
    pq.write_table(table, path)


def write_chat(folder: Path) -> None:
    """A run of one step: chats with a long system message, rewards that abstained, and completions that are odd."""
    path = write_run(folder, steps=1, groups=2) / "rollouts" / "step-000001.parquet"
    table = pq.read_table(path)
    system = "You are careful. " * 30
    changed = {
        "prompt": pa.array(
            [f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\nWhy {i // 4}?<|im_end|>\n" for i in range(8)]
        ),
        "reward": pa.array([None] * 4 + [1.0, 0.5, None, 0.0], pa.float32()),
        "completion": pa.array(["", "مرحبا بالعالم", "safe\u202eevil", *["x" * 500] * 5]),
        "pieces": pa.array(
            [[], ["مرحبا", " بالعالم"], ["safe", "\u202e", "evil", "\u200b", "\u0000"], *[["x" * 500]] * 5]
        ),
    }
    counts = [len(each) for each in changed["pieces"].to_pylist()]
    for name in table.column_names:
        values = table[name]
        if name in changed:
            values = changed[name]
        elif pa.types.is_list(values.type):
            values = pa.array(
                [(each * 5)[:count] for each, count in zip(values.to_pylist(), counts, strict=True)], values.type
            )
        table = table.set_column(table.column_names.index(name), name, values)
    pq.write_table(table.set_column(table.column_names.index("length"), "length", pa.array(counts)), path)


@pytest.fixture(scope="module")
def address(runs: Path) -> Iterator[str]:
    with listen("127.0.0.1", 0) as opened:
        server = uvicorn.Server(uvicorn.Config(application(RunIndex([runs])), log_level="warning"))
        thread = threading.Thread(target=server.run, args=([opened],))
        thread.start()
        yield f"http://127.0.0.1:{opened.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Callable[..., Page]]:
    """visit("#/...") opens a page; at the end none may have said an error, or asked anybody but the viewer."""
    said: list[str] = []
    asked: list[str] = []
    contexts = []

    def visit(place: str = "", **options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1400, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address + place)
        return page

    yield visit
    for context in contexts:
        context.close()
    # A refused request (a step that cannot be read) is written to the console by the browser itself.
    assert [text for text in said if "404 (Not Found)" not in text] == []
    assert {urlsplit(url).netloc for url in asked} == {urlsplit(address).netloc}


def lines(page: Page, metric: str) -> list[dict[str, Any]]:
    """What a chart draws: its runs with steps and values."""
    page.wait_for_selector(f'[data-metric="{metric}"] canvas')
    return page.evaluate(
        "metric => document.querySelector(`[data-metric='${metric}']`).chart.lines.map(({run, x, y}) => ({run, x, y}))",
        metric,
    )


def scale(page: Page, metric: str) -> list[float]:
    return page.evaluate(
        "m => { const x = document.querySelector(`[data-metric='${m}']`).chart.plot.scales.x; return [x.min, x.max]; }",
        metric,
    )


def until(page: Page, true: Callable[[], bool]) -> None:
    """Playwright's own way of waiting for something in the page needs `eval`, which the viewer forbids."""
    for _ in range(100):
        if true():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it did not become true in five seconds")


def state(page: Page) -> str:
    return page.url.split("#")[1]


def test_runs_lie_over_each_other_and_the_zoom_is_in_the_address(visit: Callable[..., Page], runs: Path) -> None:
    page = visit("#/overview?run=base&run=going")
    found = lines(page, "accuracy")
    rows = [json.loads(line) for line in (runs / "going" / "metrics.jsonl").read_text().splitlines()]
    assert [(line["run"], len(line["x"])) for line in found] == [("base", 4), ("going", 6)]
    assert found[1]["y"] == pytest.approx([row["accuracy"] for row in rows])
    expect(page.locator('[data-metric="accuracy"] .values b')).to_have_count(2)
    expect(page.locator(".config table").first).to_contain_text("0.00003")
    expect(page.locator(".notices")).to_contain_text("step-000002.parquet cannot be read")
    page.wait_for_selector(".findings[data-runs='2']", state="attached")
    box = page.locator('[data-metric="entropy"] .u-over').bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 60, steps=5)
    page.mouse.up()
    page.wait_for_url(re.compile("zoom="))
    until(page, lambda: scale(page, "accuracy") == pytest.approx([2, 4], abs=0.1))
    # The link alone shows the same to somebody else.
    other = visit("#" + state(page))
    lines(other, "accuracy")
    until(other, lambda: scale(other, "accuracy") == pytest.approx(scale(page, "accuracy")))
    page.get_by_role("button", name="whole range").click()
    until(page, lambda: scale(page, "accuracy") == [1, 6])
    page.get_by_label("base").uncheck()
    expect(page.locator('[data-metric="accuracy"] .values b')).to_have_count(1)
    assert state(page) == "/overview?run=going"


def test_a_running_run_goes_on_in_the_page(visit: Callable[..., Page], runs: Path) -> None:
    page = visit("#/run/going/metric/entropy")
    assert [len(line["x"]) for line in lines(page, "entropy")] == [6]
    expect(page.locator("#pulse")).to_contain_text("running")
    with (runs / "going" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(metrics_row(7, np.random.default_rng(0), np.ones(12), 12)) + "\n")
    expect(page.locator(".runs")).to_contain_text("7 / 6")
    until(page, lambda: len(lines(page, "entropy")[0]["x"]) == 7)


def test_rollouts_are_filtered_and_the_address_finds_them_again(visit: Callable[..., Page]) -> None:
    page = visit("#/rollouts?run=base&step=3")
    rows = page.locator(".rollouts tbody tr")
    expect(rows).to_have_count(12)
    page.get_by_role("button", name="correct").click()
    page.get_by_role("button", name="zero-signal group").click()
    expect(rows).to_have_count(4)
    expect(page.locator(".summary")).to_contain_text("4 of 12 rollouts")
    page.keyboard.press("/")
    page.keyboard.type("needle")
    expect(page.locator(".list")).to_contain_text("No rollout is like that")
    page.get_by_role("button", name="zero-signal group").click()
    page.get_by_role("button", name="correct").click()
    page.keyboard.press("Escape")
    expect(rows).to_have_count(1)
    assert sorted(re.split(r"[?&]", state(page))) == [
        "/rollouts",
        "correct=false",
        "run=base",
        "step=3",
        "text=needle",
        "zero_signal=false",
    ]
    other = visit("#" + state(page))
    expect(other.locator(".rollouts tbody tr")).to_have_count(1)
    expect(other.get_by_label("text in prompt or completion")).to_have_value("needle")
    other.get_by_role("button", name="clear").click()
    other.get_by_label("text in prompt or completion").fill("needle")
    other.get_by_label("where to look").select_option("1")
    expect(other.locator(".summary")).to_contain_text("1 found in 4 of 4 steps")
    expect(other.locator(".rollouts td").first).to_have_text("3")


def test_keys_move_through_rollouts_steps_and_tokens(visit: Callable[..., Page]) -> None:
    page = visit("#/rollouts?run=base&step=2")
    expect(page.locator(".rollouts tbody tr")).to_have_count(12)
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(page.locator("tr.chosen")).to_have_attribute("data-i", "1")
    expect(page.locator(".card")).to_have_count(4)
    expect(page.locator(".card.chosen")).to_contain_text("rollout 1")
    expect(page.locator(".card.chosen")).to_contain_text("brevity")
    page.keyboard.press("l")
    page.wait_for_url(re.compile("step=3"))
    page.keyboard.press("h")
    page.wait_for_url(re.compile("step=2"))
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("tokens"))
    page.wait_for_selector(".token")
    page.keyboard.press("n")
    page.keyboard.press("n")
    page.keyboard.press("p")
    expect(page.locator(".token.chosen")).to_have_attribute("data-i", "0")
    page.keyboard.press("j")
    page.wait_for_url(re.compile("row=1"))
    page.keyboard.press("?")
    expect(page.locator("dialog")).to_contain_text("next step")
    page.keyboard.press("Escape")
    page.go_back()
    expect(page.locator(".rollouts tbody tr")).to_have_count(12)


def test_a_clicked_token_shows_the_numbers_that_are_stored(visit: Callable[..., Page], runs: Path) -> None:
    table = pq.read_table(runs / "base" / "rollouts" / "step-000002.parquet").to_pydict()
    page = visit("#/tokens?run=base&step=2&row=5&by=ratio")
    tokens = page.locator(".token")
    expect(tokens).to_have_count(len(table["tokens"][5]))
    expect(page.locator(".legend")).to_contain_text("importance ratio")
    tokens.nth(3).click()
    for name in ("ratio", "logp", "policy_gradient", "advantage"):
        shown = page.locator(f'.numbers tr[data-name="{name}"] td').first.inner_text().replace("−", "-")
        assert float(shown) == pytest.approx(table[name][5][3], rel=1e-4)
    expect(page.locator(".axes")).to_contain_text("advantage")
    expect(page.locator(".axes")).to_contain_text("grpo")
    # The further from 1, the stronger the colour; above and below in different hues.
    colours = [tokens.nth(i).evaluate("each => each.style.backgroundColor") for i in range(len(table["ratio"][5]))]
    parsed = [[float(part) for part in re.findall(r"[\d.]+", each)] for each in colours]
    high, low = (
        min(parsed[i][:3] for i, r in enumerate(table["ratio"][5]) if (r > 1) == above) for above in (True, False)
    )
    assert high != low
    near, far = sorted(range(len(parsed)), key=lambda i: abs(table["ratio"][5][i] - 1))[:: len(parsed) - 1]
    assert (parsed[near] + [1])[3] < (parsed[far] + [1])[3]
    assert "token=3" in state(page)
    other = visit("#" + state(page))
    expect(other.locator(".token.chosen")).to_have_text(table["pieces"][5][3].replace("\n", "⏎\n"))
    other.get_by_role("radio", name="clipped").click()
    expect(other.locator(".token.marked")).to_have_count(sum(table["clipped"][5]))
    expect(other.locator(".panel h2")).to_contain_text(f"token 4 of {len(table['tokens'][5])}")


def test_a_rollout_without_numbers_is_readable_and_leads_to_those_that_have_them(visit: Callable[..., Page]) -> None:
    page = visit("#/tokens?run=base&step=2&row=9&by=ratio")
    expect(page.locator(".notice")).to_contain_text("--record tokens")
    # The texts were not recorded: they come from the tokenizer of the run.
    expect(page.locator(".token").first).to_be_visible()
    assert not re.search(r"<\d+>", page.locator(".tokens").inner_text())
    expect(page.locator(".legend")).to_contain_text("no token of this rollout has a value of ratio; instead:")
    links = page.locator(".notice a")
    assert [links.nth(i).inner_text() for i in range(links.count())] == [str(row) for row in range(8)]
    links.nth(4).click()
    page.wait_for_url(re.compile("row=4"))
    expect(page.locator(".notice")).to_have_count(0)
    expect(page.locator(".legend")).to_contain_text("importance ratio")


def test_questions_stand_in_the_list_and_rewards_that_abstained_are_none(visit: Callable[..., Page]) -> None:
    page = visit("#/rollouts?run=odd&step=1&row=0")
    expect(page.locator("td.prompt").first).to_have_text("Why 0?")
    expect(page.locator(".rollouts tbody tr").first).to_contain_text("no reward")
    expect(page.locator(".rollouts tbody tr").first).to_contain_text("(empty)")
    expect(page.locator(".panel h2")).to_contain_text("no reward")
    expect(page.locator(".card").first).to_contain_text("no reward")
    expect(page.locator(".panel .prompt")).to_contain_text("You are careful.")
    # What would turn the text round is named.
    expect(page.locator(".rollouts tbody tr").nth(2)).to_contain_text("safe⟨U+202E⟩evil")
    page.get_by_role("link", name="rollout 0: its tokens").click()
    expect(page.locator(".tokens")).to_have_text("The completion is empty: it has no tokens.")
    expect(page.locator(".summary")).to_contain_text("no reward")
    page.keyboard.press("j")
    expect(page.locator(".token")).to_have_count(2)
    assert page.locator(".tokens").evaluate("each => getComputedStyle(each).direction") == "rtl"
    expect(page.locator(".legend")).to_contain_text("0 for every token")
    page.keyboard.press("j")
    expect(page.locator(".token").nth(1)).to_have_text("⟨U+202E⟩")
    expect(page.locator(".token").nth(3)).to_have_text("⟨U+200B⟩")
    expect(page.locator(".token").nth(4)).to_have_text("⟨U+0000⟩")
    page.keyboard.press("j")
    expect(page.locator(".token")).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 1400


def test_texts_of_models_are_only_text(visit: Callable[..., Page]) -> None:
    for place in ("rollouts?run=base&step=4&row=0", "tokens?run=base&step=4&row=0"):
        page = visit("#/" + place)
        expect(page.locator("main")).to_contain_text("<b>bold</b>")
        assert page.locator("main img, main b:text-is('bold')").count() == 0
        assert "taken" not in page.title()


def test_workers_and_ranks_are_shown_where_a_run_has_them(visit: Callable[..., Page]) -> None:
    page = visit("#/overview?run=many")
    expect(page.locator(".wide h2")).to_have_text("workers and ranks")
    page.locator(".wide").scroll_into_view_if_needed()
    drawn = lines(page, "age of tokens")
    assert [len(line["x"]) for line in drawn] == [12] * 3
    # The oldest lies over all: shares up to an age, of which each step's are shown apart.
    assert [line["y"][3] for line in drawn] == pytest.approx([1.0, 0.5, 0.25])
    expect(page.locator('[data-metric="age of tokens"] .values b')).to_have_text(
        ["age 2 0.5", "age 1 0.25", "age 0 0.25"]
    )
    assert [line["y"][5] for line in lines(page, "who waits for whom")] == pytest.approx([0.15, 0.3])
    page.locator('[data-metric="tokens a second"]').scroll_into_view_if_needed()
    expect(page.locator('[data-metric="tokens a second"] .values b')).to_have_text(["ray-0 1020", "ray-1 940"])
    titles = page.locator(".wide .title").all_inner_texts()
    assert len(titles) == 11
    assert {"queue of groups", "workers", "drawn again", "mismatch in parts", "ranks: waiting"} <= set(titles)
    # Several runs: each with its own ages, all with their lines in the others; without such metrics there is nothing.
    page.goto(page.url.split("#")[0] + "#/overview?run=many&run=base")
    expect(page.locator(".wide .title").first).to_have_text("age of tokens, many")
    page.goto(page.url.split("#")[0] + "#/overview?run=base")
    expect(page.locator(".wide .chart")).to_have_count(0)
    expect(page.locator(".wide h2")).to_have_count(0)


def test_a_token_of_earlier_weights_shows_its_version_and_age(visit: Callable[..., Page]) -> None:
    page = visit("#/tokens?run=many&step=4&row=1&token=2&by=age")
    expect(page.locator("p.summary")).to_contain_text(
        "drawn by version 1 to 2 of the weights, up to 2 updates before the step's"
    )
    expect(page.locator('.numbers tr[data-name="age"] td').first).to_have_text("2")
    expect(page.locator('.numbers tr[data-name="version"] td').first).to_have_text("1")
    expect(page.locator(".legend")).to_contain_text("age")
    expect(page.locator(".axes")).to_contain_text("drawn 2 update(s) before the weights of this step")
    page.goto(page.url.split("#")[0] + "#/tokens?run=base&step=2&row=5")
    expect(page.locator("p.summary")).to_contain_text("tokens")
    expect(page.locator("p.summary")).not_to_contain_text("version")


def test_what_is_broken_is_said_and_the_rest_shown(visit: Callable[..., Page]) -> None:
    page = visit("#/rollouts?run=broken&step=2")
    expect(page.locator(".list .notice")).to_contain_text("step-000002.parquet cannot be read")
    page.keyboard.press("h")
    expect(page.locator(".rollouts tbody tr")).to_have_count(12)
    page = visit("#/overview?run=nobody")
    expect(page.locator("#banner")).to_contain_text(
        "no run nobody here. Shown are: bare, base, broken, going, many, odd"
    )
    expect(page.locator(".chart").first).to_be_visible()
    expect(page.locator(".runs tr", has_text="broken")).to_contain_text("damaged")
    # A run that stored no rollouts has its curves, and says so on the other pages.
    for place in ("rollouts", "tokens"):
        expect(visit(f"#/{place}?run=bare").locator("main")).to_contain_text(
            "bare has stored no rollouts; its curves are on the first page"
        )
    expect(page.locator(".runs tr", has_text="bare")).to_contain_text("3 / 3")
    # A run of one step is a point.
    expect(page.locator(".runs tr", has_text="odd")).to_contain_text("1 / 1")


@pytest.mark.parametrize("place", ["overview", "rollouts?run=base&row=1", "tokens?run=base&step=2&row=5&token=2"])
def test_pages_fit_a_phone_and_are_dark_where_asked(visit: Callable[..., Page], place: str) -> None:
    page = visit("#/" + place, viewport={"width": 390, "height": 800}, color_scheme="dark")
    page.wait_for_selector({"o": ".chart canvas", "r": ".card", "t": ".numbers"}[place[0]])
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    back, ink = page.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
    assert sum(map(int, re.findall(r"\d+", back)[:3])) < 120 < 500 < sum(map(int, re.findall(r"\d+", ink)[:3]))


def test_an_episode_is_shown_turn_by_turn(visit: Callable[..., Page]) -> None:
    page = visit("#/rollouts?run=talk&step=1&row=0")
    card = page.locator(".card").first
    expect(card.locator(".turn header")).to_have_text(["turn 1 reward −0.5", "turn 2"])
    expect(card.locator(".call")).to_have_text(f'add({{"a": 1, "text": {json.dumps(HOSTILE)}}})')
    # A long result is folded, and a context that was rebuilt is there to be looked at.
    expect(card.locator("details.long summary")).to_contain_text("2000 characters")
    card.locator("details.context summary").click()
    expect(card.locator("details.context pre")).to_have_text(HOSTILE)
    expect(page.locator("tr.chosen .tag").first).to_have_attribute("title", "out of turns")
    page.goto(page.url.split("#")[0] + "#/tokens?run=talk&step=1&row=1")
    expect(page.locator(".tokens div.turn").first).to_contain_text("turn 1 reward −0.5")
    expect(page.locator("p.summary")).to_contain_text("its environment failed")
    page.get_by_text("the episode, turn by turn").click()
    expect(page.locator(".episode .message.tool")).to_be_visible()
    assert page.title() != "taken"
