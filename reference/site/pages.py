"""Pages that are made from what is already said elsewhere: the answers to the exercises, and the gallery."""
from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
ANSWERS = ROOT / "tests" / "docs" / "test_exercises.py"


def title(page: Path) -> str:
    found = re.search(r"^# (.+)$", page.read_text(), re.M)
    return found[1] if found else page.stem


def gallery() -> str:
    """A picture, a title and a sentence for each page of the gallery."""
    cards = []
    listed = re.findall(r"- gallery/(\w[\w-]*)\.md", (ROOT / "mkdocs.yml").read_text())
    for page in (DOCS / "gallery" / f"{name}.md" for name in listed if name != "index"):
        text = page.read_text()
        shown = re.search(r"!\[([^\]]*)\]\((\S+?\.png)\)", text)
        if shown is None:
            raise ValueError(f"gallery/{page.name} has no picture")
        first = re.search(r"^# [^\n]+\n+(.+?)\n\n", text, re.S)
        sentence = re.sub(r"`([^`]+)`", r"<code>\1</code>", " ".join(first[1].split())) if first else ""
        cards.append(f'<a href="{page.stem}/"><img src="{shown[2]}" alt="{shown[1]}"><b>{title(page)}</b><br>{sentence}</a>')
    return '<div class="gallery">\n' + "\n".join(cards) + "\n</div>"


def exercises(chapter: Path) -> list[str]:
    """The exercises of a chapter, as they are asked."""
    text = chapter.read_text()
    asked = text.split("## Exercises", 1)[1] if "## Exercises" in text else ""
    return [" ".join(part.split()) for part in re.findall(r"^\d+\. (.+?)(?=^\d+\. |\Z)", asked, re.M | re.S)]


def answers() -> str:
    """Each exercise with its answer in words, which is the docstring of its test, and the test's code folded away."""
    source = ANSWERS.read_text()
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    lines = source.splitlines()
    out = []
    for chapter in sorted(DOCS.glob("[0-9][0-9]-*.md")):
        number = chapter.name[:2]
        out.append(f"## {title(chapter)}\n\n[The chapter]({chapter.name}).\n")
        for k, question in enumerate(exercises(chapter), 1):
            out.append(f"**{k}.** {question}\n")
            for node in functions:
                if node.name.startswith(f"test_{number}_{k}_"):
                    words = ast.get_docstring(node)
                    if words:
                        out.append(f"> {words}\n".replace("\n", "\n> ").rstrip("> \n") + "\n")
                    first = min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1
                    code = "\n".join("    " + line for line in lines[first:node.end_lineno])
                    out.append(f'??? note "As a test"\n\n    ```py\n{code}\n    ```\n')
    return "\n".join(out)
