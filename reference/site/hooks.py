"""What MkDocs asks on its way, for pages that say everything once.

Each page gets a description (its question, or its first sentence), a link to its notebook, and API entries for lines
`::: name`; the answers and the gallery are made from the tests and the pages that they show.
"""
from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from reference.site import notebooks, pages  # noqa: E402


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """The Markdown of a page, as MkDocs is to see it."""
    source = page.file.src_uri
    page.meta.setdefault("description", described(markdown))
    markdown = markdown.replace("<!-- answers -->", pages.answers()).replace("<!-- gallery -->", pages.gallery())
    markdown = re.sub(r"^::: ([\w.]+)$", lambda m: entry(m[1]), markdown, flags=re.M)
    if "\n```python" in markdown and not source.startswith("api/"):
        up = "../" * source.count("/")
        link = f'<a class="notebook" href="{up}notebooks/{source[:-3]}.ipynb" download>Notebook</a>\n\n'
        if getattr(config, "use_directory_urls", True) and not source.endswith("index.md"):
            link = link.replace('href="', 'href="../')
        markdown = re.sub(r"^(# .*\n+)", lambda m: m[1] + link, markdown, count=1, flags=re.M)
    return markdown.replace("```python raises", "```python")


def on_post_build(config: Any) -> None:
    """Every page with code, as a notebook beside the site."""
    for page in notebooks.pages():
        notebooks.write(page, Path(config["site_dir"]) / "notebooks")


def described(markdown: str) -> str:
    """One or two sentences that say what a page is about: its question, or how it begins."""
    text = re.sub(r"^```.*?^```", "", markdown, flags=re.M | re.S)
    found = re.search(r"\*\*The question\.\*\*\s+(.+?)\n\n", text, re.S)
    found = found or re.search(r"^(?![#*<|:\-\[ !])(\S.+?)\n\s*\n", text + "\n\n", re.M | re.S)
    words = found[1] if found else ""
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", words)
    return " ".join(re.sub(r"[`*$\"]", "", words).split())[:300]


def entry(name: str) -> str:
    """An entry of the reference: `solve` is shown as rv.solve, wherever it is defined. Of interop only the text is read, so that
    neither PyTorch nor JAX is needed."""
    if name.startswith("interop."):
        return f"::: revode.{name}\n    options:\n      heading: \"{name}\"\n      toc_label: \"{name}\"\n"
    package, _, rest = name.partition(".") if name.startswith("revode_cuda") else ("revode", "", name)
    thing: Any = importlib.import_module(package)
    shown = f"{'revode_cuda' if package == 'revode_cuda' else 'rv'}.{rest}"
    if rest.startswith("analysis."):
        importlib.import_module("revode.analysis")
    for part in rest.split("."):
        thing = getattr(thing, part)
    where = thing.__module__ + "." + thing.__qualname__
    return f"::: {where}\n    options:\n      heading: \"{shown}\"\n      toc_label: \"{shown}\"\n"
