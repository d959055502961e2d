"""Pages of the site that lie elsewhere in the repository, and links from any page to any file of it."""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = {
    ROOT / "CONTRIBUTING.md": "contributing.md",
    ROOT / "CHANGELOG.md": "changelog.md",
    ROOT / "README.md": "index.md",
}
"""Files outside of docs/ that are pages, and the start page, which stands for README."""
_LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)\s]*)?\))")
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def _target(source: Path, link: str) -> str | None:
    """Where a link of a file leads to within the site; None for a folder, which the site does not list."""
    path = (source.parent / link).resolve()
    if path in PAGES:
        return PAGES[path]
    if path.is_dir():
        return None
    if path.is_relative_to(DOCS) and path.suffix != ".py":
        return path.relative_to(DOCS).as_posix()
    return "files/" + path.relative_to(ROOT).as_posix()


def _links(text: str) -> list[str]:
    return [found[1] for found in _LINK.findall(_FENCE.sub("", text))]


def on_files(files: Files, config: Any) -> Files:
    """Adds those pages, and the files of the repository that some page links to."""
    for path, uri in PAGES.items():
        if uri != "index.md":
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    for page in list(files.documentation_pages()):
        source = Path(page.abs_src_path).resolve()
        for link in _links(source.read_text()):
            uri, path = _target(source, link), (source.parent / link).resolve()
            if uri and uri.startswith("files/") and path.exists() and files.get_file_from_path(uri) is None:
                files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns links as they are in the repository into links within the site."""
    source = Path(page.file.abs_src_path).resolve()

    def rewrite(match: re.Match[str]) -> str:
        target = _target(source, match[2])
        if target is None:
            return "](" + os.path.relpath("index.md", os.path.dirname(page.file.src_uri) or ".") + ")"
        return match[1] + os.path.relpath(target, os.path.dirname(page.file.src_uri) or ".") + match[3]

    return _LINK.sub(rewrite, markdown)
