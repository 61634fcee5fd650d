"""The report as a browser shows it; needs Chromium."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest
from fake_results import fake_results

from pretrain_mlip.report.html import write_report
from pretrain_mlip.report.results import Results

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
ODD = 'a "quoted" <i>name</i> & more'
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --enable-logging=stderr"
)
LOOK = """
const shown = element => element.getBoundingClientRect().width > 0;
const of = model => [...document.querySelectorAll("[data-model]")].filter(one => one.dataset.model === model);
const button = [...document.querySelectorAll(".models button")].find(one => one.value === MODEL);
const found = {
  width: [document.documentElement.scrollWidth, window.innerWidth],
  resources: performance.getEntriesByType("resource").map(one => one.name).filter(name => !name.startsWith("data:")),
  broken: [...document.images].filter(image => !image.naturalWidth).length,
  drawings: [...document.querySelectorAll("svg")].map(one => one.getBoundingClientRect().height),
  before: of(MODEL).filter(shown).length,
};
button.click();
found.hidden = of(MODEL).filter(shown).length;
found.others = of("vanilla").filter(shown).length;
found.columns = [...document.querySelectorAll("th")].filter(one => one.textContent === MODEL && shown(one)).length;
found.pressed = button.getAttribute("aria-pressed");
button.click();
found.again = of(MODEL).filter(shown).length;
document.documentElement.dataset.found = JSON.stringify(found);
"""
FRAME = """<!doctype html><meta charset="utf-8"><iframe style="width: {width}px; height: 900px; border: 0"
srcdoc="{content}"></iframe><script>addEventListener("load", () => {{
  document.documentElement.dataset.found = frames[0].document.documentElement.dataset.found;
}})</script>"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a model whose name is not fit for a web page."""
    folder = tmp_path_factory.mktemp("report")
    text = fake_results().model_dump_json().replace('"finetune"', json.dumps(ODD))
    Results.model_validate_json(text).write(folder)
    return write_report(folder)


def chromium(page: Path, *options: str) -> tuple[str, list[str]]:
    """What it prints, and the messages on the console of the page."""
    profile = page.parent / "profile"
    command = [str(CHROMIUM), *QUIET.split(), f"--user-data-dir={profile}", *options, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def look(report: Path, width: int) -> tuple[dict[str, Any], list[str]]:
    """In a frame of that width: windows are never as narrow as a phone."""
    text = report.read_text(encoding="utf-8")
    text = text.replace("</body>", f"<script>const MODEL = {json.dumps(ODD)};{LOOK}</script></body>")
    page = report.with_name(f"seen-{width}.html")
    page.write_text(FRAME.format(width=width, content=escape(text)))
    seen, messages = chromium(page, "--dump-dom", "--window-size=1300,1000")
    found = re.search(r'data-found="([^"]*)"', seen)
    assert found, (seen[-500:], messages)
    return json.loads(unescape(found[1])), messages


@pytest.mark.parametrize("width", [1200, 390])
def test_on_a_desk_and_on_a_phone(report: Path, width: int):
    found, messages = look(report, width)
    assert messages == []
    assert found["resources"] == []
    assert found["broken"] == 0
    assert found["width"][0] <= found["width"][1] == width  # the page itself need not be moved sideways
    assert len(found["drawings"]) == 8
    assert min(found["drawings"]) > 100


def test_a_model_can_be_hidden_in_all_curves_and_tables(report: Path):
    found, _ = look(report, 1200)
    assert found["before"] > 15
    assert (found["hidden"], found["pressed"]) == (0, "false")
    assert found["columns"] == 0
    assert found["others"] > 5
    assert found["again"] == found["before"]


def test_it_prints(report: Path):
    target = report.with_name("printed.pdf")
    chromium(report, f"--print-to-pdf={target}", "--no-pdf-header-footer")
    pages = target.read_bytes().count(b"/Type /Page\n")
    assert 5 <= pages <= 20


def test_the_check_of_the_console_can_fail(tmp_path: Path):
    page = tmp_path / "bad.html"
    page.write_text("<script>console.error('so it goes')</script>")
    _, messages = chromium(page, "--dump-dom")
    assert "so it goes" in messages[0]
