"""Timings and counts at real size; never part of the tests."""
