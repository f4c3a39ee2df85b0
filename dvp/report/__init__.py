"""Plots and pages made from a finished run: of its records alone, each one self-contained file."""

from dvp.report.search import report_search, write_search_page
from dvp.report.sweep import report_sweep

__all__ = ["report_search", "report_sweep", "write_search_page"]
