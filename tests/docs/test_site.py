"""What the site promises, as far as it can be seen without building it; `python -m reference.release_check site` builds it."""
from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
from run_chapters import DOCS, chapters, pages

import revode
from reference.site import check, markdown
from reference.site import pages as made

ROOT = DOCS.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HOME = PROJECT["urls"]["Homepage"]
NAV = (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1]


def test_the_contents_name_every_page_once() -> None:
    listed = re.findall(r"([\w/-]+\.md)$", NAV, re.M)
    there = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert len(listed) == len(set(listed))
    assert set(listed) == there, f"mkdocs.yml lacks {sorted(there - set(listed))}, or names {sorted(set(listed) - there)}"


def test_addresses_are_said_once() -> None:
    """README, the site and the citation agree with pyproject.toml; links of the README are absolute, and their files are there."""
    site = (ROOT / "mkdocs.yml").read_text()
    assert f"repo_url: {HOME}\n" in site and f"site_url: {PROJECT['urls']['Documentation']}\n" in site
    from reference.site import notebooks
    assert notebooks.SITE == PROJECT["urls"]["Documentation"]
    assert f"\nversion: {revode.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert links and all(link.startswith("https://") for link in links)
    for link in links:
        if link.startswith(HOME + "/blob/main/"):
            assert (ROOT / link.removeprefix(HOME + "/blob/main/")).exists(), link


def test_every_exercise_has_an_answer_in_words() -> None:
    functions = {node.name: ast.get_docstring(node) for node in ast.parse(made.ANSWERS.read_text()).body
                 if isinstance(node, ast.FunctionDef)}
    for chapter in chapters():
        asked = made.exercises(chapter)
        assert len(asked) >= 3, chapter.name
        for k in range(1, len(asked) + 1):
            words = [text for name, text in functions.items() if name.startswith(f"test_{chapter.name[:2]}_{k}_")]
            assert any(text and len(text) > 40 for text in words), f"{chapter.name}, exercise {k}: no answer in words"
    assert made.answers().count('??? note "As a test"') >= 3 * len(chapters())


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.stem)
def test_pictures_have_an_alternative_text_and_are_there(path: Path) -> None:
    for words, target in re.findall(r"!\[([^\]]*)\]\((\S+?)\)", path.read_text()):
        assert len(words) > 20 and (path.parent / target).exists(), target
        assert (path.parent / target).stat().st_size < 80_000, target


def links_of(path: Path) -> list[str]:
    """The files that a page links to, outside of its code."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S)
    return [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:|#", target)]


def test_titles_are_given_once_and_links_lead_to_files() -> None:
    """What `python -m reference.release_check site` finds in the built site too, some minutes later."""
    titles = [line for path in DOCS.rglob("*.md") for line in re.findall(r"\A# .*", path.read_text())]
    assert len(titles) > 60 and sorted(titles) == sorted(set(titles))
    nowhere = [f"{path.relative_to(DOCS)}: {target}" for path in DOCS.rglob("*.md") for target in links_of(path)
               if not (path.parent / target).exists()]
    assert len(links_of(DOCS / "index.md")) > 15 and not nowhere, nowhere


def test_the_gallery_shows_each_page_and_its_first_sentence() -> None:
    shown = made.gallery()
    names = [path.stem for path in (DOCS / "gallery").glob("*.md") if path.stem != "index"]
    assert len(names) >= 10 and shown.count("<img") == len(names)
    assert "import" not in shown and "`" not in shown and "<code>" in shown


def test_faults_of_a_site_are_seen(tmp_path: Path) -> None:
    head = '<title>{}</title><meta name="description" content="about">'
    (tmp_path / "index.html").write_text(head.format("one") + '<h1 id="here">1</h1><a href="two.html#there">2</a>'
                                         '<a href="no.html">3</a><img src="p.png"><script src="https://example.org/x.js"></script>')
    (tmp_path / "two.html").write_text(f'{head.format("one")}<h1>2</h1><h1>3</h1><pre><code>`a`</code></pre><p>`b` c</p>'
                                       '<a href="index.html#here">1</a>')
    (tmp_path / "p.png").write_bytes(b"")
    assert check.faults(tmp_path) == [
        "index.html: the picture p.png has no alternative text",
        "index.html: fetches https://example.org/x.js from elsewhere",
        "index.html: the link two.html#there leads to a place that is not there",
        "index.html: the link no.html leads nowhere",
        "two.html: has 2 headings of the first order",
        "two.html: Markdown was not set: '`b` c'",
        "the title 'one' is given twice"]


def test_a_docstring_as_markdown() -> None:
    text = ("Says a * b.\n\n    y <- a * b\n\nParameters\n----------\nx, y : (n,) numbers,\n    in m.\n\n"
            "Returns z. Raises nothing.\n\nState: y. Cost: none.\nSource: us.\n\nExample\n-------\n>>> 1 + 1\n2\n")
    assert markdown.readable(text) == (
        "Says a \\* b.\n\n    y <- a * b\n\n\n\n**Parameters**\n\n- `x, y`: (n,) numbers,\n    in m.\n\n"
        "**Returns.** z. Raises nothing.\n\n**State.** `y`.\n\n**Cost.** None.\n\n**Source.** Us.\n\n"
        "**Example**\n\n```pycon\n>>> 1 + 1\n2\n```")
