"""A cell: one piece of an experiment with a folder and a result of its own."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from led_fast.errors import InputError
from led_fast.files import read_json, write_json
from led_fast.provenance import provenance

_SETTINGS = "settings.json"  # written first: what a stopped cell left behind may serve no other settings


@dataclass(frozen=True)
class Cell:
    """Work that is done once and kept.

    Attributes:
        name: of its folder.
        work: a function of a module, so that another process finds it: `work(folder, **settings)` returns the
            result as JSON values. Called again after it was stopped, it may go on from what its folder holds.
        settings: JSON values. A folder in which work with other settings was begun is refused.
    """

    name: str
    work: Callable[..., dict[str, Any]]
    settings: dict[str, Any]


@dataclass(frozen=True)
class Finished:
    """A finished cell: its folder and the content of its `result.json`."""

    cell: Cell
    folder: Path
    content: dict[str, Any]

    @property
    def result(self) -> dict[str, Any]:
        """What the cell's work returned."""
        return self.content["result"]


def folder_of(cell: Cell, out: Path) -> Path:
    """Where a cell works: `out/cells/<name>`."""
    return out / "cells" / cell.name


def finished(cell: Cell, out: Path) -> Finished | None:
    """The cell's result, None where it has none yet; InputError where it was begun with other settings."""
    folder = folder_of(cell, out)
    begun, result = folder / _SETTINGS, folder / "result.json"
    content = read_json(result) if result.exists() else None
    if content is not None or begun.exists():
        settings = content.get("settings") if content is not None else read_json(begun)
        if settings != json.loads(json.dumps(cell.settings)):  # in JSON tuples are lists
            raise InputError(
                f"{folder}: was begun with other settings or another version; choose a new --out"
            )
    return None if content is None else Finished(cell, folder, content)


def run_cell(cell: Cell, out: Path, command: str) -> None:
    """Does a cell's work and writes its `result.json`, which marks it as finished.

    Args:
        cell: what to do.
        out: folder of the experiments.
        command: that a reader can repeat it with.
    """
    folder = folder_of(cell, out)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / _SETTINGS, cell.settings)
    began = time.monotonic()
    result = cell.work(folder, **cell.settings)
    head = {"cell": cell.name, "command": command, **provenance(), "seconds": time.monotonic() - began}
    write_json(folder / "result.json", {**head, "settings": cell.settings, "result": result})
