"""A page of the documentation as a notebook: the same source, read by jupytext.

    python -m reference.site.notebooks FOLDER            every page that has code, into this folder
    python -m reference.site.notebooks FOLDER 00 gallery/flow      these pages alone
    python -m reference.site.notebooks --run 00          execute them, with the figures of their cells kept in FOLDER

What a page prints is left out, for a notebook prints it itself. Figures come along inside, links lead to the site.
"""
from __future__ import annotations

import argparse
import base64
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[2] / "docs"
SITE = "https://revode.github.io/revode/"
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+\.png)\)")
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s:#]+)(#[^)\s]*)?\)")
OUTPUT = re.compile(r"(^```python[^\n]*\n.*?^```\n)\n+```text\n.*?^```\n", re.M | re.S)


def pages() -> list[Path]:
    """Every page with code that runs."""
    return sorted(path for path in DOCS.rglob("*.md") if "\n```python" in path.read_text())


def name_of(page: Path) -> str:
    return page.relative_to(DOCS).with_suffix("").as_posix()


def chosen(names: list[str]) -> list[Path]:
    """The pages of these names (or beginnings of names); ValueError for a name that no page has."""
    there = pages()
    unknown = [name for name in names if not any(name_of(page).startswith(name) for page in there)]
    if unknown:
        raise ValueError(f"no page begins with {', '.join(unknown)}; there are {', '.join(map(name_of, there))}")
    return [page for page in there if not names or any(name_of(page).startswith(name) for name in names)]


def address(page: Path, target: str) -> str:
    """Where a link of a page leads on the site."""
    path = (page.parent / target).resolve().relative_to(DOCS).as_posix()
    return SITE + (re.sub(r"(^|/)index$", r"\1", path[:-3]).rstrip("/") + "/" if path.endswith(".md") else path)


def notebook(page: Path) -> Any:
    """The notebook of a page, as nbformat's tree."""
    import jupytext

    text = OUTPUT.sub(r"\1", page.read_text())
    text = re.sub(r"^```python raises$", '```python tags=["raises-exception"]', text, flags=re.M)
    made = jupytext.reads(text, fmt="md")
    made.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
                     "language_info": {"name": "python"}}
    for n, cell in enumerate(made.cells):
        cell["id"] = f"cell-{n}"
        if cell.cell_type == "markdown":
            for _, target in IMAGE.findall(cell.source):
                picture = base64.b64encode((page.parent / target).read_bytes()).decode()
                cell.setdefault("attachments", {})[Path(target).name] = {"image/png": picture}
            words = LINK.sub(lambda m: f"[{m[1]}]({address(page, m[2])}{m[3] or ''})", cell.source)
            cell.source = IMAGE.sub(lambda m: f"![{m[1]}](attachment:{Path(m[2]).name})", words)
    return made


def write(page: Path, folder: Path) -> Path:
    import nbformat

    path = folder / (name_of(page) + ".ipynb")
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook(page), path)
    return path


def execute(page: Path) -> None:
    """Run a page as a notebook, in a folder of its own; raises where a cell does, unless it is meant to."""
    from nbclient import NotebookClient

    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook(page), timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Pages of the documentation as notebooks.")
    parser.add_argument("--run", action="store_true", help="execute instead of writing; then all arguments are names of pages")
    parser.add_argument("folder", nargs="?", help="where to write")
    parser.add_argument("page", nargs="*", help="beginnings of names, such as 00 or gallery; all without")
    options = parser.parse_args(arguments)
    names = [*([options.folder] if options.run and options.folder else []), *options.page]
    if not options.run and not options.folder:
        parser.error("name a folder to write to, or --run")
    try:
        found = chosen(names)
    except ValueError as error:
        parser.error(str(error))
    for page in found:
        began = time.perf_counter()
        if options.run:
            execute(page)
        else:
            write(page, Path(options.folder))
        print(f"{name_of(page)}.ipynb: {time.perf_counter() - began:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
