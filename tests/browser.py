"""The browser that tests drive: where it is found, the fixture that opens it, and `python -m tests.browser`, which gets one if
that is possible."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "chrome-headless-shell")
LACKING = (
    "NO BROWSER WAS FOUND, so that the viewer is not tested in one. Install Chromium (on Debian: apt-get install chromium), "
    "or name one in COHORT_BROWSER."
)
# Chromium refuses to run as root inside its sandbox, and containers have little shared memory.
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage"]
# Milliseconds that a page may take for anything; far more than it takes, since a busy machine is no failure.
PATIENCE = 20_000


# For one package at a time: while Playwright is open, its event loop runs, in which no other test could start one.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A browser without a window; packages whose tests drive it import this fixture in their conftest.py."""
    found = find_browser()
    if found is None:
        warnings.warn(LACKING, stacklevel=1)
        pytest.skip(LACKING)
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield opened
        opened.close()


def find_browser() -> str | None:
    """A Chromium: of the environment variable COHORT_BROWSER, in PATH, or that which Playwright installed."""
    named = os.environ.get("COHORT_BROWSER")
    if named:
        return shutil.which(named)
    found = next(filter(None, map(shutil.which, NAMES)), None)
    return found or next((str(path) for path in _of_playwright() if os.access(path, os.X_OK)), None)


def _of_playwright() -> list[Path]:
    caches = (".cache/ms-playwright", "Library/Caches/ms-playwright", "AppData/Local/ms-playwright")
    folders = [Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or "."), *(Path.home() / cache for cache in caches)]
    names = ("chrome", "headless_shell", "chrome-headless-shell", "chrome.exe", "Chromium")
    return [
        path
        for folder in folders
        for name in names
        for path in sorted(folder.glob(f"chromium*/**/{name}"), reverse=True)
    ]


def install() -> str | None:
    """Try to get one: of Debian, for which one has to be root, or from Playwright's makers; what cannot work is no error."""
    attempts = [[sys.executable, "-m", "playwright", "install", "chromium-headless-shell"]]
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        get = ["apt-get", "-o", "Acquire::http::Timeout=20", "-o", "Acquire::Retries=1"]
        attempts = [[*get, "update"], [*get, "install", "-y", "--no-install-recommends", "chromium"], *attempts]
    for command in attempts:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        try:
            subprocess.run(
                command, timeout=240, env=environment, capture_output=True, check=False, stdin=subprocess.DEVNULL
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if (found := find_browser()) is not None:
            return found
    return None


if __name__ == "__main__":
    print(f"== browser: {find_browser() or install() or LACKING}")
