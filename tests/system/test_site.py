"""The documentation builds without a warning; links within it hold; its pages ask no other host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("sphinx", reason="the extra `docs` is not installed")

DOCS = Path(__file__).parents[2] / "docs"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LOADED = {("script", "src"), ("img", "src"), ("source", "src"), ("iframe", "src"), ("object", "data"), ("embed", "src")}
"""Elements and attributes that make a browser ask for something; of ``link`` it is the kind that says so."""


class Page(HTMLParser):
    """A page's anchors, its links, and what it has a browser load."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors, self.links, self.loaded = set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        if tag == "link" and values.get("rel") not in ("canonical", "next", "prev", "search", "index", "author"):
            self.loaded.append(values["href"])
        self.loaded += [values[name] for of, name in LOADED if of == tag and values.get(name)]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site: where CI has built it, else built here."""
    if "FFDASK_SITE" in os.environ:
        return Path(os.environ["FFDASK_SITE"])
    out = tmp_path_factory.mktemp("site")
    flags = ["-W", "--keep-going", "-n", "-q", "-b", "html", "-d", str(out / "doctrees")]
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", *flags, str(DOCS), str(out / "html")], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return out / "html"


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    found = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    assert len(found) > 30
    return found


def test_every_page_and_notebook_is_there(site):
    sources = [path for kind in ("md", "ipynb") for path in DOCS.rglob(f"*.{kind}")]
    sources = [path.relative_to(DOCS) for path in sources if not path.relative_to(DOCS).parts[0].startswith("_")]
    assert len(sources) > 30
    assert [str(path) for path in sources if not (site / path.with_suffix(".html")).is_file()] == []


def test_links_within_the_site_hold(pages):
    broken, followed = [], 0
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            followed += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                broken.append(f"{path.name}: {link}")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                broken.append(f"{path.name}: {link} (no such anchor)")
    assert followed > 1000
    assert sorted(set(broken)) == []


def test_pages_load_nothing_from_another_host(site, pages):
    loaded = [(path.name, where) for path, page in pages.items() for where in page.loaded]
    assert loaded
    for style in site.rglob("*.css"):
        loaded += [
            (style.name, where) for where in re.findall(r"(?:url\(|@import\s+)['\"]?([^'\")\s;]+)", style.read_text())
        ]
    assert [one for one in loaded if re.match(r"(https?:)?//", one[1])] == []


def test_pictures_of_schedules_were_made(site):
    asked = sum(len(re.findall(r"^```{drawn}", page.read_text(), re.MULTILINE)) for page in DOCS.rglob("*.md"))
    made = [path for path in (site / "_images").glob("*.svg") if "<svg" in path.read_text()]
    assert len(made) >= asked >= 8
