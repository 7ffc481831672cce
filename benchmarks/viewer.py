"""How fast the viewer answers on a large run: 1,000 steps of 256 rollouts, made of random numbers (1 to 2 GB, deleted after).

    python -m benchmarks.viewer                       1,000 steps of 256 rollouts of about 200 tokens
    python -m benchmarks.viewer --steps 100 --length 1000
    python -m benchmarks.viewer --browser             the first page in a real browser too

Printed are the median and the slowest of several requests through HTTP, and, with --browser, the fastest and the slowest of
five visits, from asking for the page to its curves: both server and browser are busy, so that what else the machine does
counts twice.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import uvicorn
from tests.analysis.stored_run import metrics_row, write_run

from cohort.viewer.run_index import RunIndex
from cohort.viewer.server import application, listen

TEMPLATES = 8
"""Steps whose files are made; the others are copies, since making them takes longer than reading."""


def large_run(folder: Path, steps: int, groups: int, size: int, length: int) -> Path:
    """A run of many steps, whose tokens are recorded for an eighth of the groups."""
    write_run(folder, steps=TEMPLATES, groups=groups, group_size=size, length=length, recorded=max(1, groups // 8))
    random = np.random.default_rng(1)
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        for step in range(TEMPLATES + 1, steps + 1):
            source = folder / "rollouts" / f"step-{(step - 1) % TEMPLATES + 1:06d}.parquet"
            shutil.copy(source, folder / "rollouts" / f"step-{step:06d}.parquet")
            file.write(json.dumps(metrics_row(step, random, random.random(groups * size), length)) + "\n")
    return folder


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a viewer of the folder."""
    with listen("127.0.0.1", 0) as opened:
        server = uvicorn.Server(uvicorn.Config(application(RunIndex([folder])), log_level="warning"))
        thread = threading.Thread(target=server.run, args=([opened],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{opened.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


def seconds(address: str, path: str, **parameters: object) -> float:
    """Time of one request, body read."""
    began = time.perf_counter()
    with urllib.request.urlopen(f"{address}{path}?{urllib.parse.urlencode(parameters)}", timeout=60) as response:
        response.read()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--groups", type=int, default=32)
    parser.add_argument("--size", type=int, default=8)
    parser.add_argument("--length", type=int, default=200)
    parser.add_argument("--browser", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = large_run(Path(place) / "large", asked.steps, asked.groups, asked.size, asked.length)
        stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(
            f"{asked.steps} steps of {asked.groups * asked.size} rollouts of about {asked.length} tokens, {stored / 1e6:.0f} MB"
        )
        with serving(folder) as address:
            began = time.perf_counter()
            for path in ("", "static/app.js", "assets/uplot.min.js"):
                seconds(address, path)
            seconds(address, "api/runs")
            seconds(address, "api/metrics", run="large")
            print(f"{'all that the first page needs, first time':48} {1000 * (time.perf_counter() - began):8.0f} ms")
            every = range(1, asked.steps + 1, max(1, asked.steps // 20))
            for what, path, parameters in (
                ("what is asked every two seconds", "api/runs", {}),
                ("a step's rollouts", "api/rollouts", {"run": "large"}),
                (
                    "a step's rollouts, by text and reward",
                    "api/rollouts",
                    {"run": "large", "text": "needle", "reward_min": 0.5},
                ),
                ("a group", "api/group", {"run": "large", "group": 1}),
                ("a rollout's tokens", "api/tokens", {"run": "large", "row": 1}),
                ("a token's numbers and lines", "api/token", {"run": "large", "row": 1, "token": 5}),
            ):
                times = [
                    seconds(address, path, **parameters, **({} if path == "api/runs" else {"step": s})) for s in every
                ]
                print(f"{what:48} {1000 * statistics.median(times):8.0f} ms   slowest {1000 * max(times):.0f} ms")
            began, first, looked = time.perf_counter(), 0, 0
            while first is not None:
                query = urllib.parse.urlencode({"run": "large", "text": "no such text", "first": first})
                with urllib.request.urlopen(f"{address}api/search?{query}", timeout=60) as response:
                    part = json.load(response)
                first, looked = part["next"], looked + part["steps_read"]
            print(
                f"{'a text that is nowhere, in all steps':48} {1000 * (time.perf_counter() - began):8.0f} ms   {looked} steps"
            )
            if asked.browser:
                times = first_page(address)
                print(
                    f"{'the first page, in a browser':48} {1000 * min(times):8.0f} ms   slowest {1000 * max(times):.0f} ms"
                )


def first_page(address: str) -> list[float]:
    """Seconds until the first page shows its curves, of several visits without a cache."""
    from playwright.sync_api import sync_playwright
    from tests.browser import ARGUMENTS, find_browser

    found = find_browser()
    if found is None:
        sys.exit("no browser was found: see tests/browser.py")
    times = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=ARGUMENTS)
        for _ in range(5):
            page = browser.new_context().new_page()
            page.goto("about:blank")
            began = time.perf_counter()
            page.goto(address, wait_until="commit")
            page.wait_for_selector(".chart canvas")
            times.append(time.perf_counter() - began)
            page.context.close()
        browser.close()
    return times


if __name__ == "__main__":
    main()
