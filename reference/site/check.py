"""Is a built site whole? Links, titles, descriptions, alternative texts, formulas, and nothing that another server is asked for.

    python -m reference.site.check FOLDER
"""
from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHED = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src")}
CODE = ("code", "script", "style")
TOLD = ("canonical", "prev", "next", "alternate")            # links of <head> that no browser follows


class Page(HTMLParser):
    """What a page links to, fetches and says of itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.ids: set[str] = set()
        self.without_alt: list[str] = []
        self.title = self.description = ""
        self.inside = ""
        self.code = 0                                        # how deep in code, where a backtick may stand
        self.raw: list[str] = []
        self.headings = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.inside = tag
        self.code += tag in CODE
        self.headings += tag == "h1"
        if "id" in given:
            self.ids.add(given["id"])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "img" and not given.get("alt"):
            self.without_alt.append(given.get("src", ""))
        if tag == "meta" and given.get("name") == "description":
            self.description = given.get("content", "")
        for name, value in given.items():
            if (tag, name) in FETCHED and not set(given.get("rel", "").split()) & set(TOLD):
                self.fetched.append(value)

    def handle_endtag(self, tag: str) -> None:
        self.code -= tag in CODE

    def handle_data(self, data: str) -> None:
        if not self.code and "`" in data:
            self.raw.append(" ".join(data.split()))
        if self.inside == "title":
            self.title += data.strip()
            self.inside = ""


def target(site: Path, page: Path, link: str) -> Path | None:
    """The file that a link leads to; None where it leaves the site."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    path = (site / parts.path.lstrip("/") if parts.path.startswith("/") else page.parent / unquote(parts.path)) if parts.path else page
    return path / "index.html" if path.is_dir() else path


def faults(site: Path) -> list[str]:
    """One line for everything that is wrong."""
    pages = {path.resolve(): Page(path.read_text()) for path in sorted(site.rglob("*.html"))
             if path.name != "404.html"}
    found = []
    for path, page in pages.items():
        name = path.relative_to(site.resolve()).as_posix()
        found += [f"{name}: {fault}" for fault, wrong in (
            ("has no title", not page.title), ("has no description", not page.description),
            (f"has {page.headings} headings of the first order", page.headings != 1)) if wrong]
        found += [f"{name}: Markdown was not set: {words!r}" for words in page.raw]
        found += [f"{name}: the picture {src} has no alternative text" for src in page.without_alt]
        found += [f"{name}: fetches {url} from elsewhere" for url in page.fetched if urlsplit(url).netloc]
        for link in [*page.links, *page.fetched]:
            where = target(site.resolve(), path, link)
            if where is None:
                continue
            if not where.exists():
                found.append(f"{name}: the link {link} leads nowhere")
            elif (mark := unquote(urlsplit(link).fragment)) and where.resolve() in pages and mark not in pages[where.resolve()].ids:
                found.append(f"{name}: the link {link} leads to a place that is not there")
    for path in site.rglob("*.css"):
        if "url(http" in path.read_text() or "@import" in path.read_text():
            found.append(f"{path.relative_to(site)}: fetches something from elsewhere")
    titles = [page.title for page in pages.values()]
    found += [f"the title {title!r} is given twice" for title in sorted(set(titles)) if titles.count(title) > 1]
    return found


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or not (Path(arguments[0]) / "index.html").exists():
        print("usage: python -m reference.site.check FOLDER, with a built site in it", file=sys.stderr)
        return 2
    found = faults(Path(arguments[0]))
    print("\n".join(found) or f"{len(list(Path(arguments[0]).rglob('*.html')))} pages: whole")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
