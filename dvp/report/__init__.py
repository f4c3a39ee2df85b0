"""Plots and pages made from a finished run: of its records alone, each one self-contained file."""

from dvp.report.search import write_search_page
from dvp.report.sweep import write_sweep_page

__all__ = ["write_search_page", "write_sweep_page"]
