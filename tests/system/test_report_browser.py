"""A run's report, and the page that compares runs, opened in Chromium: all pictures there, and all in the file."""

from __future__ import annotations

import pytest
from browser import opened

from ffdask.sections import MOST_MISTAKES
from tests.system.conftest import command

pytestmark = pytest.mark.slow

PICTURES = """
() => [...document.images].map(image => [image.alt, image.complete, image.naturalWidth, image.naturalHeight])
"""

DRAWINGS = """
() => [...document.querySelectorAll("svg")].map(svg => {
  const parts = [...svg.querySelectorAll("path, rect, use, text, circle, image")];
  const boxes = parts.map(part => part.getBoundingClientRect());
  const frame = svg.getBoundingClientRect();
  const drawn = boxes.filter(box => box.width + box.height > 0 && box.right > frame.left && box.left < frame.right);
  return [frame.width, frame.height, drawn.length];
})
"""


def check_opens(page, picture, tmp_path):
    """Check a page as a browser shows it; return how many pictures and drawings it has."""
    with opened(page.as_uri()) as seen:
        seen.page.wait_for_load_state("networkidle")
        pictures, drawings = seen.page.evaluate(PICTURES), seen.page.evaluate(DRAWINGS)
        seen.keep(tmp_path, picture)
        assert [request for request in seen.requests if not request.startswith("data:")] == [page.as_uri()]
        assert seen.errors == []
        width = seen.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width[0] <= width[1], "it is wider than the window"
    for shows, complete, wide, high in pictures:
        assert complete, shows
        assert min(wide, high) > 0, shows
    for wide, high, drawn in drawings:
        assert min(wide, high) > 50
        assert drawn > 5
    return len(pictures), len(drawings)


@pytest.fixture
def runs(train):
    return [train(run__evaluate_every=1), train(schedule__name="all-layers", training__epochs=2)]


def test_a_report_shows_all_its_pictures(runs, tmp_path):
    said = command("ffdask.report", runs[0].path, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    pictures, drawings = check_opens(runs[0].path / "report.html", "report.png", tmp_path)
    # The sheet of weights, and the hardest mistakes; timeline, curves twice, confusion, goodness.
    assert pictures == 1 + MOST_MISTAKES
    assert drawings >= 5


def test_a_comparison_shows_all_its_pictures(runs, tmp_path):
    page = tmp_path / "compare.html"
    said = command("ffdask.compare", *(run.path for run in runs), "--out", page, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    _, drawings = check_opens(page, "compare.png", tmp_path)
    assert drawings >= 1


def test_without_chromium_a_test_skips_or_fails_as_it_is_asked(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    for required, outcome in (("", pytest.skip.Exception), ("1", pytest.fail.Exception)):
        monkeypatch.setenv("FFDASK_REQUIRE_CHROMIUM", required)
        with pytest.raises(outcome, match="apt-get install chromium"), opened("about:blank"):
            pass


def test_a_picture_that_is_elsewhere_would_be_noticed(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<img alt='gone' src='gone.png'><script>throw Error('no')</script>")
    with pytest.raises(AssertionError, match=r"gone\.png"):
        check_opens(page, "gone.png", tmp_path)
