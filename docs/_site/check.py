"""Checks a built site: `python docs/_site/check.py site`. Every link leads somewhere, and nothing is fetched."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
"""Elements by which a browser fetches something when it shows a page, and the attribute that names it."""


class Page(HTMLParser):
    """The ids and the links of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[tuple[str, bool]] = []  # and whether they are fetched
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes what a tag defines and where it leads."""
        named = {name: value for name, value in attrs if value}
        if "id" in named:
            self.ids.add(named["id"])
        fetched = tag in _FETCHED and named.get("rel") not in ("canonical", "next", "prev")
        if link := named.get(_FETCHED.get(tag, "href")):
            self.links.append((link, fetched))


def problems(site: Path) -> list[str]:
    """What is wrong, one line each."""
    pages = {path: Page(path) for path in site.rglob("*.html")}
    found = []
    for path, page in pages.items():
        if path.name == "404.html":  # whose links are from the root of a server
            continue
        for link, fetched in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if fetched and parts.scheme != "data":
                    found.append(f"{path.relative_to(site)}: fetches {link}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                found.append(f"{path.relative_to(site)}: nothing at {link}")
            elif target in pages and parts.fragment and unquote(parts.fragment) not in pages[target].ids:
                found.append(f"{path.relative_to(site)}: no such place: {link}")
    return found


if __name__ == "__main__":
    site = Path(sys.argv[1]).resolve()
    found = problems(site)
    print("\n".join(found))
    count = len(list(site.rglob("*.html")))
    print(f"{count} pages, {len(found)} problems")
    sys.exit(bool(found) or not count)
