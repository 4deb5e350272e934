"""Run the book: every ```python block of a chapter, in order, in one fresh namespace.

    python -m tests.docs.run_chapters              run all chapters, say where the book and the machine disagree
    python -m tests.docs.run_chapters 00 08        only these (or backends, gallery: other pages, or how their names begin)
    python -m tests.docs.run_chapters --write      run, and put what was really printed, and drawn, into the pages
    python -m tests.docs.run_chapters --script 00  print the chapter's code as one script

What a block prints must stand in a ```text block right after it. A block opened with ```python raises must raise; the
error counts as printed. A warning counts as printed too, once for each text in a block: Python itself shows it once for
each place. Inside warnings and errors numbers are not compared, because a message may quote a size that rounding decides.
"""
from __future__ import annotations

import argparse
import contextlib
import io
import re
import sys
import tempfile
import textwrap
import time
import warnings
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import NamedTuple, TextIO

from revode import plotting

DOCS = Path(__file__).resolve().parents[2] / "docs"
WIDTH = 112          # messages are wrapped, so that a page needs no scrolling
NUMBER = re.compile(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?|\binf\b|\bnan\b")
MESSAGE = re.compile(r"^(\w+\.)*\w*(Error|Warning): ")


class Block(NamedTuple):
    """One ```python block of a chapter and the ```text block after it."""
    start: int               # index of the first line of code
    end: int                 # index of the closing fence
    raises: bool
    shown: str | None        # what the chapter says it prints; None without a text block
    shown_end: int           # index of the last line of the text block, or `end`


def chapters() -> list[Path]:
    return sorted(DOCS.glob("[0-9][0-9]-*.md"))


def pages() -> list[Path]:
    """The chapters, and every other page with code, which is run like them."""
    return [*chapters(), *(DOCS / f"{name}.md" for name in PAGES)]


def others() -> tuple[str, ...]:
    """The names of the pages with code that are no chapters, as gallery/flow."""
    coded = (path for path in DOCS.rglob("*.md") if "\n```python" in path.read_text())
    return tuple(sorted(path.relative_to(DOCS).with_suffix("").as_posix() for path in coded if path not in chapters()))


def name_of(path: Path) -> str:
    return path.relative_to(DOCS).with_suffix("").as_posix() if path.is_relative_to(DOCS) else path.stem


PAGES = others()


def blocks(lines: list[str]) -> list[Block]:
    """The blocks of a chapter; ValueError for a fence that is not closed."""
    found = []
    i = 0
    while i < len(lines):
        if not lines[i].startswith("```"):
            i += 1
            continue
        kind = lines[i][3:].strip()
        end = closing(lines, i)
        if kind in ("python", "python raises"):
            after = end + 1
            while after < len(lines) and not lines[after]:
                after += 1
            shown, shown_end = None, end
            if after < len(lines) and lines[after].startswith("```text"):
                shown_end = closing(lines, after)
                shown = "\n".join(lines[after + 1:shown_end])
            found.append(Block(i + 1, end, kind.endswith("raises"), shown, shown_end))
            end = shown_end
        i = end + 1
    return found


def closing(lines: list[str], start: int) -> int:
    for i in range(start + 1, len(lines)):
        if lines[i] == "```":
            return i
    raise ValueError(f"line {start + 1}: the fence {lines[start]!r} is not closed")


def code_of(lines: list[str], block: Block) -> str:
    return "\n".join(lines[block.start:block.end])


def worded(error: BaseException | Warning) -> str:
    return textwrap.fill(f"{type(error).__name__}: {error}", WIDTH, subsequent_indent="    ", break_long_words=False,
                         break_on_hyphens=False)


def execute(code: str, namespace: dict, filename: str, raises: bool) -> str:
    """Run one block; what it printed, its warnings and its error included, in the order in which they came."""
    out = io.StringIO()
    said = set()

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None,
             line: str | None = None) -> None:
        text = worded(message) if isinstance(message, Warning) else message
        if text not in said:
            print(text, file=out)
        said.add(text)

    with warnings.catch_warnings(), redirect_stdout(out):
        warnings.simplefilter("always")
        warnings.showwarning = show
        try:
            exec(compile(code, filename, "exec"), namespace)
        except Exception as error:
            if not raises:
                raise
            print(worded(error))
        else:
            if raises:
                raise AssertionError(f"{filename}: a block marked `raises` raised nothing")
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def run(path: Path, pictures: bool = False) -> tuple[list[str], list[tuple[Block, str]], dict]:
    """Execute a page, in a folder of its own: its lines, what each block really printed, and the namespace it left.

    pictures: what it has drawn, with letters that a slide can show, is put beside the page.
    """
    lines = path.read_text().splitlines()
    namespace: dict = {"__name__": path.stem}
    results = []
    style = plotting.style() if pictures and "pyplot" in "".join(lines) else contextlib.nullcontext()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), style:
        for block in blocks(lines):
            # Empty lines in front, so that a traceback names the line of the chapter.
            code = "\n" * block.start + code_of(lines, block)
            results.append((block, execute(code, namespace, str(path), block.raises)))
        drawn = sorted(Path(folder).glob("*.png"))
        for picture in drawn:
            if pictures:
                keep(picture, path.parent / picture.name)
        if "pyplot" in "".join(lines):
            from matplotlib import pyplot
            pyplot.close("all")
    return lines, results, namespace


@cache
def once(path: Path) -> tuple[list[str], list[tuple[Block, str]], dict]:
    """`run`, once in a process: for tests that look at a page after one another."""
    return run(path)


def keep(picture: Path, path: Path) -> None:
    """A picture in 200 colours, which makes it half as large."""
    from PIL import Image

    Image.open(picture).convert("RGB").quantize(200).save(path, optimize=True)


def comparable(text: str) -> str:
    """The text with the numbers of warnings and errors masked, and their line breaks undone."""
    paragraphs: list[str] = []
    for line in text.splitlines():
        if line.startswith("    ") and paragraphs and MESSAGE.match(paragraphs[-1]):
            paragraphs[-1] += " " + line.strip()
        else:
            paragraphs.append(line)
    return "\n".join(NUMBER.sub("#", p) if MESSAGE.match(p) else p for p in paragraphs)


def differences(path: Path) -> list[str]:
    """Where the chapter does not show what its code prints."""
    _, results, _ = once(path) if path.is_relative_to(DOCS) else run(path)
    return [f"{path.name}, line {block.end + 2}: the book shows\n{block.shown or '(nothing)'}\nbut the code prints\n"
            f"{printed or '(nothing)'}"
            for block, printed in results if comparable(printed) != comparable(block.shown or "")]


def written(lines: list[str], results: list[tuple[Block, str]]) -> list[str]:
    """The chapter's lines with what was really printed; a block that still agrees is left as it is."""
    lines = list(lines)
    for block, printed in reversed(results):
        if comparable(printed) == comparable(block.shown or ""):
            continue
        text = ["", "```text", *printed.splitlines(), "```"] if printed else []
        lines[block.end + 1:block.shown_end + 1] = text
    return lines


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Run the chapters of the book.")
    parser.add_argument("chapter", nargs="*", help="numbers, such as 00; all without")
    parser.add_argument("--write", action="store_true", help="refresh the text blocks")
    parser.add_argument("--script", action="store_true", help="print the code, run nothing")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.chapter if not any(name_of(path).startswith(name) for path in pages())]
    if unknown:
        parser.error(f"no chapter begins with {', '.join(unknown)}; there are {', '.join(map(name_of, pages()))}")
    bad = 0
    for path in pages():
        if options.chapter and not any(name_of(path).startswith(name) for name in options.chapter):
            continue
        if options.script:
            lines = path.read_text().splitlines()
            print("\n\n".join(code_of(lines, block) for block in blocks(lines)))
            continue
        began = time.perf_counter()
        lines, results, _ = run(path, pictures=options.write)
        seconds = time.perf_counter() - began
        wrong = [1 for block, printed in results if comparable(printed) != comparable(block.shown or "")]
        if options.write and wrong:
            path.write_text("\n".join(written(lines, results)) + "\n")
        elif wrong:
            bad += len(wrong)
            print("\n\n".join(differences(path)))
        state = "refreshed" if options.write else "DIFFERENT"
        print(f"{name_of(path)}: {len(results)} blocks, {seconds:.1f} s" + (f", {len(wrong)} {state}" if wrong else ""))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
