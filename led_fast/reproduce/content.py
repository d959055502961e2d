"""The result of a whole experiment: one JSON file from which its tables are made."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from led_fast.files import read_json, write_atomically
from led_fast.reproduce.cell import Finished

_KEPT = ("version", "torch", "machine", "seconds", "settings", "result")  # of a cell's own file


def write_content(
    path: Path, experiment: str, command: str, quick: bool, results: Sequence[Finished]
) -> None:
    """Writes the head and one line a cell, with the versions and the machine that each was made with."""
    head = {"experiment": experiment, "command": command, "quick": quick}
    lines = [f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in head.items()]
    cells = [
        f"  {json.dumps(r.cell.name)}: " + json.dumps({key: r.content[key] for key in _KEPT}, allow_nan=False)
        for r in results
    ]
    body = ",\n".join(cells)
    write_atomically(path, ("{\n" + "".join(lines) + ' "cells": {\n' + body + "\n }\n}\n").encode())


def read_content(path: Path) -> dict[str, Any]:
    """Reads what `write_content` wrote; InputError names the file where it is missing or broken."""
    return read_json(path)


def results_by_variant(content: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The cells' results by cell name without the seed, `ring-default-0` under `ring-default`, in order."""
    variants: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name, cell in content["cells"].items():
        variants[name.rsplit("-", 1)[0]].append(cell["result"])
    return dict(variants)
