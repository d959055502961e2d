"""Kinds of data: each is a room of its own, and the only place that knows what is special about it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from led_fast.errors import InputError

if TYPE_CHECKING:
    from led_fast.kinds.kind import Kind

_BUILT_IN = {
    "points": "led_fast.kinds.points",
    "images": "led_fast.kinds.images",
    "tables": "led_fast.kinds.tables",
}
_registered: dict[str, Kind] = {}


def register(kind: Kind) -> None:
    """Adds a kind of data, by its name, or replaces the one of that name."""
    _registered[kind.name] = kind


def kind_names() -> list[str]:
    """The names of all kinds: those that were registered first, because they may claim what others would take.

    Example:
        >>> from led_fast.kinds import kind_names
        >>> {"points", "images", "tables"} <= set(kind_names())
        True
    """
    return list(dict.fromkeys([*_registered, *_BUILT_IN]))


def find_kind(name: str) -> Kind:
    """A kind by its name.

    Raises:
        InputError: there is none of that name.

    Example:
        >>> from led_fast.kinds import find_kind
        >>> find_kind("tables").about
        'tables'
    """
    if name in _registered:
        return _registered[name]
    if name not in _BUILT_IN:
        raise InputError(f"kind of data: want one of {', '.join(kind_names())}, got {name!r}")
    return import_module(_BUILT_IN[name]).KIND


def all_kinds() -> list[Kind]:
    """All kinds, in the order in which they are asked whether data are theirs.

    Example:
        >>> from led_fast.kinds import all_kinds, kind_names
        >>> [kind.name for kind in all_kinds()] == kind_names()
        True
    """
    return [find_kind(name) for name in kind_names()]
