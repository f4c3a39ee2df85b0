"""A training at every K: its cells and table on disk, what all that cost, and how the search looks beside it."""

from dvp.sweep.flops import search_flops, sweep_flops, training_flops
from dvp.sweep.level import Reached
from dvp.sweep.record import (
    alike,
    beside,
    extent,
    read_cells,
    rows_for_search,
    sweep_folder,
    table_lines,
    table_of,
    trained_at,
    write_cell,
    write_sweep,
)

__all__ = [
    "Reached",
    "alike",
    "beside",
    "extent",
    "read_cells",
    "rows_for_search",
    "search_flops",
    "sweep_flops",
    "sweep_folder",
    "table_lines",
    "table_of",
    "trained_at",
    "training_flops",
    "write_cell",
    "write_sweep",
]
