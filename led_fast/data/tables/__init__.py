"""Tables of numbers with named columns: any file of them as training data."""

from led_fast.data.tables.columns import Column, Constant, describe, is_planar, round_to_lattice
from led_fast.data.tables.npy import table_of
from led_fast.data.tables.read import column_names, read_new_rows, read_table
from led_fast.data.tables.schema import SUFFIXES
from led_fast.data.tables.source import SPLITS, TableSource
from led_fast.data.tables.table import Labels, Table
from led_fast.data.tables.write import check_suffix, write_table

__all__ = [
    "SPLITS",
    "SUFFIXES",
    "Column",
    "Constant",
    "Labels",
    "Table",
    "TableSource",
    "check_suffix",
    "column_names",
    "describe",
    "is_planar",
    "read_new_rows",
    "read_table",
    "round_to_lattice",
    "table_of",
    "write_table",
]
