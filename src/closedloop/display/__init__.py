"""Tables and plots from plain columns.

Law of this folder: it knows no record of the library; results call it with columns and get text, escaped HTML, a frame or
matplotlib Axes back. matplotlib, pandas and polars are imported inside the functions that need them.
"""

from closedloop.display.frames import frame
from closedloop.display.tables import html_table, number, text_table

__all__ = ["frame", "html_table", "number", "text_table"]
