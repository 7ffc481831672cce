"""Pictures of the viewer for docs/viewer.md: make the runs that they show, then photograph its pages.

    python docs/pictures.py [FOLDER]      runs that stand in FOLDER (build/pictures) are not made again

It needs a Chromium (see tests/browser.py). Training takes about six minutes on two cores.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import uvicorn
from playwright.sync_api import Page, sync_playwright
from tests.browser import ARGUMENTS, find_browser

import cohort
from cohort.viewer.run_index import RunIndex
from cohort.viewer.server import application, listen

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "docs" / "pictures"
WIDTH = 1280
# Name of a run -> its method, and what is its own of the configuration.
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "healthy": ("grpo", {"steps": 60, "eval_every": 10}),
    "lr_x30": ("grpo", {"steps": 60, "eval_every": 10, "lr": 3e-3}),
    "gtpo": ("gtpo", {"steps": 12, "record": "tokens"}),
    "dapo": ("dapo", {"steps": 12, "reward": ["task", "0.2*length"]}),
    "tools": ("grpo", {"steps": 4, "model": "toy-tools"}),
}


def make(folder: Path) -> None:
    """Train what is not there yet."""
    for name, (method, own) in RUNS.items():
        if not (folder / name / "summary.json").exists():
            cohort.train(method, out=str(folder / name), resume=(folder / name).exists(), tensorboard=False, **own)


def photograph(folder: Path) -> None:
    """Take the pictures."""
    listening = listen("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}/"
    index = RunIndex([folder / name for name in RUNS])
    server = uvicorn.Server(uvicorn.Config(application(index), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=find_browser(), args=ARGUMENTS)

            def shown(place: str, height: int, wait_for: str) -> Page:
                page = browser.new_page(viewport={"width": WIDTH, "height": height})
                page.goto(f"{address}#/{place}")
                page.wait_for_selector(wait_for)
                return page

            def taken(page: Page, name: str) -> None:
                page.wait_for_load_state("networkidle")
                page.screenshot(path=PICTURES / f"viewer-{name}.png")
                page.close()

            taken(shown("overview?run=healthy&run=lr_x30&smooth=0.6", 860, "text=learning-rate-high"), "overview")
            taken(shown("rollouts?run=dapo&step=3&row=10", 760, "text=this prompt in all steps"), "rollouts")
            taken(
                shown("tokens?run=gtpo&step=3&row=2&token=4&by=policy_gradient", 800, "text=what made them so"),
                "tokens",
            )
            taken(shown("rollouts?run=tools&step=4&row=8", 760, "text=this prompt in all steps"), "turns")
            browser.close()
    finally:
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    place = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "pictures")
    make(place)
    photograph(place)
