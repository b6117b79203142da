"""Debian's Chromium, without a window, for tests that open a page as a user does."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright


@dataclass
class Seen:
    """An open page; what it has asked for, and what went wrong in it."""

    page: Page
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def keep(self, folder: Path, name: str) -> Path:
        """Keep a picture of the whole page: in ``FFDASK_SCREENSHOTS`` if that is set, else in `folder`."""
        kept = Path(os.environ.get("FFDASK_SCREENSHOTS", folder))
        kept.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=kept / name, full_page=True)
        return kept / name


@contextlib.contextmanager
def opened(address: str) -> Iterator[Seen]:
    """Open a page; the browser is closed afterwards."""
    program = _chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            seen = Seen(browser.new_page(viewport={"width": 1300, "height": 900}))
            seen.page.on("request", lambda request: seen.requests.append(request.url))
            seen.page.on("websocket", lambda socket: seen.requests.append(socket.url))
            seen.page.on("pageerror", lambda error: seen.errors.append(str(error)))
            seen.page.on("requestfailed", lambda request: seen.errors.append(f"not had: {request.url}"))
            seen.page.on("console", lambda said: seen.errors.extend([said.text] if said.type == "error" else []))
            seen.page.goto(address)
            yield seen
        finally:
            browser.close()


def _chromium() -> str:
    """Return the program; without it the test is skipped, or fails if ``FFDASK_REQUIRE_CHROMIUM=1``."""
    program = shutil.which("chromium")
    if program is None:
        why = "no chromium here: apt-get install chromium"
        if os.environ.get("FFDASK_REQUIRE_CHROMIUM") == "1":
            pytest.fail(why)
        pytest.skip(why)
    return program
