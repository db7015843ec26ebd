"""The documentation holds together: pages and links exist, tables say what the code says."""

import re
from pathlib import Path

import pytest
import yaml

from jaxspec.posterior.flags import FLAG_TEXT, Flag, usable

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "llms.txt"])


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http", "mailto")):
            continue
        name, _, anchor = target.partition("#")
        other = page.parent / name if name else page
        assert other.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(other), f"{page.name} links to {target}"


def pages(nav):
    for entry in nav:
        for value in entry.values():
            yield from [value] if isinstance(value, str) else pages(value)


def test_every_page_of_the_site_exists():
    nav = list(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert len(nav) == len(set(nav)) > 20
    for page in nav:
        assert (ROOT / "docs" / page).exists(), page
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        for module in re.findall(r"^::: ([\w.]+)$", page.read_text(), re.M):
            path = ROOT / module.replace(".", "/")
            assert path.with_suffix(".py").exists(), module


def test_the_table_of_flags_is_the_codes():
    text = (ROOT / "docs" / "howto" / "flags.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (\w+) \| (yes|no) \|", text, re.M)
    assert {(int(bit), name): kind == "yes" for bit, name, kind in rows} == {
        (int(flag), flag.name): usable(int(flag)) for flag in Flag
    }
    assert len(FLAG_TEXT) == len(rows)


def test_the_readme_is_two_screens():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 100 and max(map(len, lines)) <= 200


def test_the_instrument_of_the_docs_is_one(tmp_path):
    from jaxspec.instruments import get_instrument

    text = (ROOT / "docs" / "howto" / "instruments.md").read_text()
    example = text.split("`my_red.yaml`:\n\n")[1].split("\n\nAn arm")[0]
    (tmp_path / "my_red.yaml").write_text("\n".join(line[4:] for line in example.splitlines()))
    assert get_instrument(str(tmp_path / "my_red.yaml")).n_pixels == 2000
