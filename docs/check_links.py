"""Dead links in the built site and in the repository's own Markdown: python docs/check_links.py SITE.

Links to files and anchors are looked up; https links are checked only by their form, since nothing is fetched. A page
that would load anything from elsewhere (script, style, font, image) is an error.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from markdown.extensions.toc import slugify

ROOT = Path(__file__).resolve().parents[1]
LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "object": "data"}
ADDRESS = re.compile(r"https://[a-z0-9-]+(\.[a-z0-9-]+)+(/[\w./?=&%#~+:@-]*)?")


class _Page(HTMLParser):
    """The anchors of a page and where it leads: (tag, address)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors.update(value for key, value in attrs if key in ("id", "name") and value)
        if tag == "link" and values.get("rel") in ("canonical", "next", "prev"):
            return
        name = LOADS.get(tag, "href")
        if values.get(name):
            self.links.append((tag, str(values[name])))


def site_faults(site: Path) -> Iterator[str]:
    """One sentence a dead or foreign link of a built site."""
    pages = {path: _Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    if not pages:
        yield f"{site} holds no page: build it with run_scripts/docs.sh."
    for path, page in pages.items():
        if path.name == "404.html":  # its links begin at the server's root
            continue
        for tag, link in page.links:
            where = f"{path.relative_to(site)}: <{tag}> {link}"
            if urlsplit(link).scheme or link.startswith("//"):
                if tag in LOADS:
                    yield f"{where} is loaded from elsewhere."
                elif not ADDRESS.fullmatch(link):
                    yield f"{where} is no well-formed https address."
                continue
            name, _, anchor = link.partition("#")
            target = (path.parent / unquote(name.split("?")[0])).resolve() if name else path
            if not target.exists():
                yield f"{where} leads to no file."
            elif anchor and target in pages and unquote(anchor) not in pages[target].anchors | {"__top"}:
                yield f"{where} leads to no anchor."


def markdown_faults(path: Path) -> Iterator[str]:
    """One sentence a dead link of a Markdown file of the repository, as GitHub shows it."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        where = f"{path.relative_to(ROOT)}: {link}"
        if urlsplit(link).scheme:
            if not ADDRESS.fullmatch(link):
                yield f"{where} is no well-formed https address."
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        if not target.exists():
            yield f"{where} leads to no file."
        elif anchor and anchor not in headings(target.read_text()):
            yield f"{where} leads to no heading."


def headings(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a Markdown text."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return {slugify(title, "-") for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def main() -> int:
    """Prints the faults; 1 if there are any."""
    documents = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "recipe").rglob("*.md"))]
    faults = [*site_faults(Path(sys.argv[1])), *(fault for path in documents for fault in markdown_faults(path))]
    sys.stderr.writelines(f"{fault}\n" for fault in faults)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
