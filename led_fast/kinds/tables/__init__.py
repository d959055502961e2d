"""Tables of any number of columns, continuous or on a lattice."""

from led_fast.kinds.tables.kind import KIND
from led_fast.kinds.tables.settings import TablesModel
from led_fast.kinds.tables.task import TablesTask

__all__ = ["KIND", "TablesModel", "TablesTask"]
