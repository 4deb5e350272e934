"""The book runs, and what it shows is what its code prints."""
import ast
import re

import pytest
from run_chapters import DOCS, PAGES, blocks, chapters, code_of, comparable, differences, main, run, worded, written

from revode.compiled import backend
from revode.compiled.plans import programs
from tests.compiler import HERE

WIDTH = 120        # characters: a page is read without scrolling
HEAVY = ("03", "05", "10", "12")           # chapters that count memory, or take many steps: five seconds to a minute
LONG = ("which-method", *(name for name in PAGES if name.startswith("gallery/") and name[8:] not in ("pendulum", "choreography")))
TYPED = 40         # lines of functions and classes that a chapter types in front of the reader (STYLE.md)


@pytest.mark.optimised             # what is compared to the last bit is what a reader gets
@pytest.mark.parametrize("path", [pytest.param(path, marks=[pytest.mark.long] * path.name.startswith(HEAVY), id=path.stem)
                                  for path in chapters()])
def test_the_book_shows_what_its_code_prints(path):
    wrong = differences(path)
    assert not wrong, "\n\n".join([*wrong, "If the new output is right: python -m tests.docs.run_chapters --write"])


@pytest.mark.parametrize("path", chapters(), ids=lambda path: path.stem)
def test_a_chapter_is_short_and_whole(path):
    text = path.read_text()
    lines = text.splitlines()
    assert re.match(r"\*Read before: .+\. Difficulty: (easy|middling|hard)\. Time: \d+ minutes, exercises not counted\.\*", lines[2])
    for headings in (("**The question.**",), ("## The equation", "## Two ways to measure", "## Why a float does not come back"),
                     ("## What goes wrong",), ("## Exercises",)):
        assert any(heading in text for heading in headings), headings
    assert [line for line in lines if len(line) > WIDTH] == []
    typed = 0
    for block in blocks(lines):
        code = code_of(lines, block)
        for node in ast.parse(code).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                typed += sum(bool(line.strip()) for line in code.splitlines()[node.lineno - 1:node.end_lineno])
    assert typed <= TYPED


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.long] * (name in LONG))
                                  for name in PAGES])
def test_a_page_shows_what_its_code_prints(name, monkeypatch):
    if name == "backends" and not HERE:
        pytest.skip("no C++ compiler")
    monkeypatch.setattr(backend, "_told", set())               # a fallback is told once for each field and process
    programs.clear()                                           # and programs are kept for the next solve
    page = DOCS / f"{name}.md"
    wrong = differences(page)
    assert not wrong, "\n\n".join([*wrong, f"If the new output is right: python -m tests.docs.run_chapters {name} --write"])
    text = page.read_text()
    assert [line for line in text.splitlines() if len(line) > WIDTH + 10 and not line.startswith("|")] == []


def test_the_contents_list_the_chapters_once_each():
    linked = re.findall(r"\]\((\d\d-[\w-]+\.md)\)", (DOCS / "index.md").read_text())
    assert linked == [path.name for path in chapters()]


def test_figures_are_small_and_have_a_script():
    used = {name for path in DOCS.glob("*.md") for name in re.findall(r"\(figures/([\w-]+\.png)\)", path.read_text())}
    there = {path.name for path in (DOCS / "figures").glob("*.png")}
    assert used == there and used
    for name in used:
        assert (DOCS / "figures" / name).stat().st_size < 80_000
        assert (DOCS / "figures" / name).with_suffix(".py").exists()


CHAPTER = """# 99

```python
print(1 + 1)
```

```text
3
```

```python raises
raise ValueError("off by 0.125 at step 7")
```

```text
ValueError: off by 0.250 at step 8
```
"""


def test_a_wrong_output_is_found_and_rewritten(tmp_path):
    path = tmp_path / "99-wrong.md"
    path.write_text(CHAPTER)
    found = differences(path)
    assert len(found) == 1 and "shows\n3\nbut the code prints\n2" in found[0]     # the error's numbers are not compared
    lines, results, _ = run(path)
    path.write_text("\n".join(written(lines, results)) + "\n")
    assert path.read_text() == CHAPTER.replace("\n3\n", "\n2\n")
    assert differences(path) == []


@pytest.mark.parametrize("old, new, fault", [
    ("ValueError(", "TypeError(", "TypeError: off"),                       # another error
    ("off by", "wrong by", "wrong by"),                                    # another message
    ("print(1 + 1)", "import warnings; warnings.warn('boo')", "UserWarning: boo"),
    ("print(1 + 1)", "print(3); print(4)", "3\n4"),
])
def test_what_is_compared(tmp_path, old, new, fault):
    path = tmp_path / "99-wrong.md"
    path.write_text(CHAPTER.replace("\n3\n", "\n2\n").replace(old, new, 1))
    found = differences(path)
    assert len(found) == 1 and fault in found[0]


def test_a_warning_counts_once_for_each_text(tmp_path):
    path = tmp_path / "99-warned.md"
    path.write_text("```python\nimport warnings\nfor text in ('one', 'one', 'two'):\n    warnings.warn(text)\n```\n\n"
                    "```text\nUserWarning: one\nUserWarning: two\n```\n")
    assert differences(path) == []


def test_a_name_that_no_page_has_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["backend", "88"])
    assert "no chapter begins with 88" in capsys.readouterr().err


def test_a_block_that_should_raise_and_does_not_is_an_error(tmp_path):
    path = tmp_path / "99-wrong.md"
    path.write_text(CHAPTER.replace("raise ValueError", "str"))
    with pytest.raises(AssertionError, match="raised nothing"):
        differences(path)


def test_numbers_count_outside_messages():
    assert comparable("y = 1.5") != comparable("y = 1.6")
    assert comparable("ValueError: 1.5e-3 and\n    2") == comparable("ValueError: inf\n    and 3")
    assert worded(ValueError("x " * 100)).count("\n") == 1
