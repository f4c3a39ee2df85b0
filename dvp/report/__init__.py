"""Plots and pages made from a finished run: of its records alone, each one self-contained file."""

from dvp.report.search import write_search_page

__all__ = ["write_search_page"]
