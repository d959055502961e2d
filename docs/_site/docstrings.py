"""Docstrings as they are in the sources, made Markdown: cross-references, examples and shapes."""

import re
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":(?:func|class|meth):`([\w.]+)`")


class Docstrings(Extension):
    """Links what is named by a role, and calls sections as the parser does."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrites one docstring."""
        if obj.docstring is not None:
            text = _ROLE.sub(_link, obj.docstring.value)
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)


def _link(role: re.Match[str]) -> str:
    name = role[1]
    foreign = name.startswith("torch.")  # whose pages are not here
    return f"`{name}`" if foreign else f"[`{name}`][{name}]"
