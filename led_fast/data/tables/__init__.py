"""Tables of numbers with named columns: any file of them as training data."""

from led_fast.data.tables.columns import Column, Constant, describe, is_points, round_to_lattice
from led_fast.data.tables.read import SUFFIXES, read_table
from led_fast.data.tables.table import Table, table_of

__all__ = [
    "SUFFIXES",
    "Column",
    "Constant",
    "Table",
    "describe",
    "is_points",
    "read_table",
    "round_to_lattice",
    "table_of",
]
