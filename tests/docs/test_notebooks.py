"""Pages as notebooks: what they hold, and what is left out. (`python -m reference.release_check notebooks` runs them.)"""
from __future__ import annotations

from pathlib import Path

import pytest

from reference.site import notebooks

pytest.importorskip("jupytext", reason="jupytext is not here: pip install '.[docs]'")


def test_a_notebook_has_the_code_of_its_page_and_no_output(tmp_path: Path) -> None:
    page, = notebooks.chosen(["07"])
    path = notebooks.write(page, tmp_path)
    import nbformat
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert len(code) == page.read_text().count("\n```python")
    assert [bool(cell.metadata.get("tags")) for cell in code].count(True) == page.read_text().count("```python raises")
    text = "\n".join(cell.source for cell in book.cells)
    assert "```text" not in text and "two_lines" in text and "100 steps: 101 evaluations" not in text


@pytest.mark.parametrize("page", notebooks.pages(), ids=notebooks.name_of)
def test_code_comes_along_unchanged(page: Path) -> None:
    """`pull(a)[1](b)` in code looks like a link, and is none."""
    text = page.read_text()
    for cell in notebooks.notebook(page).cells:
        assert cell.cell_type != "code" or cell.source in text


def test_pictures_come_along_and_links_lead_to_the_site() -> None:
    page, = notebooks.chosen(["gallery/chaos"])
    book = notebooks.notebook(page)
    first = book.cells[0]
    assert "attachment:chaos.png" in first.source and len(first["attachments"]["chaos.png"]["image/png"]) > 1000
    assert f"]({notebooks.SITE}15-train-your-own/)" in "\n".join(cell.source for cell in book.cells)


def test_a_name_that_no_page_has_is_refused() -> None:
    with pytest.raises(ValueError, match="no page begins with 77"):
        notebooks.chosen(["00", "77"])
