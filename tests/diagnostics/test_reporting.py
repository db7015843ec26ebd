"""The page: complete, in one file, and safe whatever the texts are."""

import dataclasses
from html.parser import HTMLParser

import numpy as np
import pytest

from jaxspec import diagnostics
from jaxspec.diagnostics.evaluators import EVALUATORS
from jaxspec.errors import InputError
from tests.diagnostics.test_evaluators import gaussian

NASTY = '<script>alert("1")</script> & \' ümlaut'
VOID = {"meta", "img"}


class Page(HTMLParser):
    """Checks that elements are closed in order, and keeps what is looked for."""

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.text, self.ids, self.links = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        attrs = dict(attrs)
        self.attributes += [(tag, name, value) for name, value in attrs.items()]
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.links += [attrs["href"]] if "href" in attrs else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    right = gaussian(np.random.default_rng(1), n=200, n_draws=60, name="right")
    wrong = gaussian(np.random.default_rng(2), n=200, n_draws=60, stretch=0.5, name=NASTY)
    facts = {"weights": NASTY, "versions": {"jax": "1.2.3", NASTY: "<b>"}}
    return diagnostics.report(path, [right, wrong], facts, title=NASTY), path


def test_everything_is_on_the_page(written):
    found, path = written
    page = Page(path.read_text(encoding="utf-8"))
    assert not page.open
    text = "".join(page.text)
    pictures = 0
    for results in found.values():
        assert len(results) == len(EVALUATORS)
        for result in results:
            pictures += len(result.pictures)
            assert result.title in text and result.verdict[1:] in text
            for table in result.tables:
                assert table.caption in text
                assert all(cell in page.text for row in table.rows for cell in row if cell)
    images = [value for tag, name, value in page.attributes if tag == "img" and name == "src"]
    assert len(images) == pictures == 14
    assert "jax: 1.2.3" in text and "200 stars, 60 draws each" in text
    judged = [r.passed for results in found.values() for r in results if r.passed is not None]
    assert f"{sum(judged)} of {len(judged)} checks passed" in text
    assert text.count("✗ fail") >= 3 and text.count("✓ pass") >= 3


def test_nothing_is_loaded_from_elsewhere_and_links_lead_somewhere(written):
    page = Page(written[1].read_text(encoding="utf-8"))
    for _, name, value in page.attributes:
        if name == "src":
            assert value.startswith("data:image/png;base64,")
        assert "://" not in (value or "")
    assert "url(" not in "".join(page.text) and "@import" not in "".join(page.text)
    assert len(set(page.ids)) == len(page.ids)
    assert page.links and {link[1:] for link in page.links} <= set(page.ids)


def test_texts_are_escaped(written):
    text = written[1].read_text(encoding="utf-8")
    page = Page(text)
    assert "<script" not in text and "".join(page.text).count(NASTY) >= 4
    assert not any(tag in ("script", "b") for tag, _, _ in page.attributes)


def test_failed_cells_are_marked_by_more_than_a_colour(written):
    text = written[1].read_text(encoding="utf-8")
    assert text.count('<td class="bad">') > 5 and 'td.bad::before { content: "✗ "; }' in text


def test_an_old_page_survives_a_failure(written, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")
    stars = gaussian(np.random.default_rng(3), n=30, n_draws=40)
    monkeypatch.setattr("jaxspec.diagnostics.reporting._table", lambda table: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        diagnostics.report(path, [stars])
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_sets_must_have_names_of_their_own(tmp_path):
    stars = gaussian(np.random.default_rng(3), n=30, n_draws=40)
    for sets in ([], [stars, dataclasses.replace(stars)]):
        with pytest.raises(InputError, match="different names"):
            diagnostics.report(tmp_path / "report.html", sets)
