from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
from fake_results import MODELS, fake_results
from matplotlib.figure import Figure

from pretrain_mlip.errors import InputError
from pretrain_mlip.report import page as pages
from pretrain_mlip.report.html import PARTS, write_report
from pretrain_mlip.report.results import Results

if TYPE_CHECKING:
    from pathlib import Path

PNG = b"\x89PNG\r\n\x1a\n"


class Page(HTMLParser):
    """What the tests look at: tags in order, attributes of pictures, links, text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.pictures: list[str | None] = []
        self.links: list[str] = []
        self.ids: list[str | None] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        if tag in ("img", "svg"):
            self.pictures.append(dict(attrs).get("alt" if tag == "img" else "aria-label"))
        self.links += [value for key, value in attrs if key in ("href", "src", "xlink:href") and value]
        self.ids += [value for key, value in attrs if key == "id"]

    def handle_startendtag(self, tag, attrs):  # of drawings
        self.handle_starttag(tag, attrs)
        if tag not in ("meta", "img", "br"):
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    fake_results().write(folder)
    write_report(folder)
    return folder


@pytest.fixture
def no_drawing(monkeypatch) -> None:
    """Figures are made but not rendered, which takes most of the time of a report."""
    monkeypatch.setattr(pages, "_draw", lambda picture, _: picture.name)


@pytest.fixture(scope="module")
def page(run) -> Page:
    return Page((run / "report.html").read_text(encoding="utf-8"))


def test_file_is_self_contained_and_well_formed(run, page):
    assert page.open == []
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in page.links)
    assert not {"link", "iframe", "object"} & set(page.tags)
    text = (run / "report.html").read_text()
    assert not re.search(r"url\((?!#)|@import|<script .*src", text)
    assert set(re.findall(r"https?://[^\s\"]*", text)) <= {"http://www.w3.org/1999/xlink", "http://www.w3.org/2000/svg"}


def test_what_is_linked_to_is_there_once(page):
    assert len(set(page.ids)) == len(page.ids)
    inside = {link[1:] for link in page.links if link.startswith("#")}
    assert inside <= set(page.ids)
    assert len(inside) > len(PARTS)  # parts, and pieces of drawings


def test_every_picture_has_words_and_a_file(run, page):
    files = list((run / "figures").iterdir())
    assert len(page.pictures) == len(files) == 13
    assert all(words and len(words) > 20 for words in page.pictures)
    for path in files:
        assert path.read_bytes().startswith(PNG)
        assert path.stat().st_size < 250_000


def test_the_verdict_comes_first(page):
    text = " ".join(page.words.split())
    places = [
        text.index(piece) for piece in ("delta survives best", "energy MAE (meV/atom)", "Survival in", "Provenance")
    ]
    assert places == sorted(places)
    assert all(model in text for model in MODELS if model != "eam")
    assert "Not part of this run" not in text


def test_numbers_that_do_not_exist_never_reach_the_reader(page):
    assert not re.search(r"\b(nan|None|inf)\b", page.words)


@pytest.mark.usefixtures("no_drawing")
@pytest.mark.parametrize("section", [name for name in Results.model_fields if name not in ("format_version", "title")])
def test_any_section_may_be_missing(tmp_path, section):
    results = fake_results().model_copy(update={section: None})
    text = shorten(results, tmp_path)
    noted = {"survival": "survival in MD", "rdf": "radial distribution", "parity": "parity", "errors": "errors"}
    if section in noted:
        assert f"left out: {noted[section]}" in " ".join(text.split())


@pytest.mark.usefixtures("no_drawing")
def test_empty_run_still_gives_a_report(tmp_path):
    text = " ".join(shorten(Results(), tmp_path).split())
    assert all(name in text for name in PARTS)


@pytest.mark.usefixtures("no_drawing")
def test_one_model_and_one_pair_are_enough(tmp_path):
    full = fake_results()
    sections = ("errors", "parity", "learning", "dimers", "dimer_metrics", "survival", "squeeze")
    one = {name: {"vanilla": getattr(full, name)["vanilla"]} for name in sections}
    pairs = {name: {"O-Si": getattr(full, name)["O-Si"]} for name in ("eam_decomposition", "pair_distances")}
    one["dimers"] = {"vanilla": {"O-Si": full.dimers["vanilla"]["O-Si"]}}
    assert "vanilla" in shorten(full.model_copy(update={**one, **pairs}), tmp_path)


@pytest.mark.usefixtures("no_drawing")
def test_tables_without_columns_do_no_harm(tmp_path):
    rdf = fake_results().rdf
    assert rdf is not None
    shorten(fake_results().model_copy(update={"rdf": rdf.model_copy(update={"mae": {"vanilla": {}}})}), tmp_path)


@pytest.mark.usefixtures("no_drawing")
def test_text_from_outside_is_escaped(tmp_path):
    results = fake_results().model_copy(update={"title": "<script>alert(1)</script>"})
    results.write(tmp_path)
    text = write_report(tmp_path).read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text


@pytest.mark.parametrize("points", [False, True])
def test_words_beside_pictures_are_escaped(tmp_path, points):
    hostile = '"><script>alert(1)</script>'
    picture = pages.Picture("curve", Figure(), alt=hostile, caption=hostile, points=points)
    part = pages.Part(hostile, pictures=[picture])
    text = pages.write_page(tmp_path, title="t", subtitle="s", verdict=[hostile], parts=[part]).read_text()
    assert "<script>alert" not in text
    assert Page(text).pictures == [hostile]


def test_no_results_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        write_report(tmp_path)


def shorten(results: Results, folder: Path) -> str:
    results.write(folder)
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    assert page.open == []
    return page.words
