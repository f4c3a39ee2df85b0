"""Plots and pages made from a finished run: of its records alone, each one self-contained file."""
