"""The pages as files: what each says, that nothing runs inline, and that everything to operate has a name."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser

import pytest
from fastapi.testclient import TestClient

from tumortrace.app.routes.pages import LINKS
from tumortrace.app.settings import STATIC

VOID = {"meta", "link", "input", "img", "br", "hr"}


class Page(HTMLParser):
    """The elements of a page, each with its attributes and the tags that it lies in."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), list(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes, _ in self.elements if tag in tags]


@pytest.fixture(params=LINKS, ids=[name for _, name, _ in LINKS])
def page(request: pytest.FixtureRequest, client: TestClient) -> tuple[str, str, Page]:
    path, name, _ = request.param
    text = client.get(path).text
    return name, text, Page(text)


def test_each_page_says_what_it_is_not_for(page: tuple[str, str, Page]) -> None:
    """Above everything else, and links to all pages with itself marked."""
    _, text, parsed = page
    assert text.index("Research use only. Not a medical device.") < text.index("<main")
    links = [each for each in parsed.all("a") if each.get("href") in {path for path, _, _ in LINKS}]
    assert {each["href"] for each in links} == {path for path, _, _ in LINKS}
    assert sum("aria-current" in each for each in links) == 1


def test_nothing_runs_inline_and_nothing_comes_from_elsewhere(page: tuple[str, str, Page]) -> None:
    """No script or style in the page or its attributes, and no address of another host."""
    _, text, parsed = page
    assert all("src" in each for each in parsed.all("script"))
    assert not parsed.all("style")
    for _, attributes, _ in parsed.elements:
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"""(src|href)=["'](https?:)?//""", text)


def test_everything_to_operate_has_a_name(page: tuple[str, str, Page]) -> None:
    """Every field has a label, every picture an alt, every table header a scope; ids are there once."""
    _, text, parsed = page
    labelled = {each.get("for") for each in parsed.all("label")}
    for tag, attributes, around in parsed.elements:
        if tag in ("input", "select", "progress"):
            assert "label" in around or attributes.get("id") in labelled or attributes.get("aria-label"), attributes
        if tag == "img":
            assert "alt" in attributes
        if tag == "th":
            assert attributes.get("scope") in ("col", "row")
    ids = Counter(each[1]["id"] for each in parsed.elements if "id" in each[1])
    assert not [identity for identity, count in ids.items() if count > 1]
    for _, attributes, _ in parsed.elements:
        for name in ("for", "aria-labelledby", "aria-describedby"):
            assert set((attributes.get(name) or "").split()) <= set(ids)
    assert len(parsed.all("h1")) == len(parsed.all("main")) == 1
    assert ('<html lang="en">' in text) & ('name="viewport"' in text) & ('href="#main"' in text)


def test_scripts_find_what_they_reach_for(page: tuple[str, str, Page], client: TestClient) -> None:
    """Every element that a page's script looks up by id is in that page; its files are served."""
    name, _, parsed = page
    ids = {each[1]["id"] for each in parsed.elements if "id" in each[1]}
    wanted = set(re.findall(r"""\$\("([\w-]+)"\)""", (STATIC / f"{name}.js").read_text()))
    made_by_script = {"layer"}
    assert wanted - made_by_script <= ids
    for each in [*parsed.all("script"), *parsed.all("link")]:
        assert client.get(str(each.get("src") or each.get("href"))).status_code == 200


def test_the_viewer_comes_with_its_licence() -> None:
    """OpenSeadragon is shipped, unchanged but for the address of its source map, with its licence."""
    folder = STATIC / "vendor" / "openseadragon"
    assert "Redistribution and use in source and binary forms" in (folder / "LICENSE.txt").read_text()
    assert "sourceMappingURL" not in (folder / "openseadragon.min.js").read_text()
