"""duckdb as it reads and writes tables here: in bounded memory, quiet, and never over the network."""

import os
from pathlib import Path

import duckdb

_MEMORY = "1GB"  # beyond it duckdb goes to the temporary folder


def connect(folder: Path) -> duckdb.DuckDBPyConnection:
    """Opens an empty database whose files are in a temporary folder."""
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": _MEMORY,
        "threads": min(4, os.cpu_count() or 1),
        "temp_directory": str(folder),
        "autoinstall_known_extensions": False,
    }
    connection = duckdb.connect(str(folder / "table.duckdb"), config=settings)
    connection.execute("SET enable_progress_bar = false")  # it is drawn on stdout, where samples are written
    return connection
