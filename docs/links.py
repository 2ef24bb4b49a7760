"""Follow every link of the built site that stays on it; say which lead nowhere, and exit with status 1 if any does.

python docs/links.py docs/_build/html
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """Gather the anchors of a page, and where it leads to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors, self.links = {""}, set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag names, and what it leads to."""
        given = dict(attrs)
        self.anchors.update(filter(None, (given.get("id"), given.get("name"))))
        self.links.update(filter(None, (given.get("href"), given.get("src"))))


def broken_links(root: Path) -> list[str]:
    """List the links of the pages below a folder whose file or anchor is not there."""
    pages = {path.resolve(): Page(path) for path in root.rglob("*.html")}
    found = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            is_there = target in pages and unquote(parts.fragment) in pages[target].anchors
            if not (parts.scheme or is_there or target not in pages and target.is_file()):
                found.append(f"{path.relative_to(root.resolve())}: {link}")
    return sorted(found)


if __name__ == "__main__":
    broken = broken_links(Path(sys.argv[1]))
    print(*broken, sep="\n", end="\n" if broken else "")
    print(f"{len(broken)} broken links in {sys.argv[1]}")
    sys.exit(bool(broken))
