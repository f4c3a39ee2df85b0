"""Runs beside each other as text: within a hundred columns, and what is the same of all of them once."""

import pytest

from dvp.report.comparison import comparison_lines

HEAD = ["run", "K", "best", "after", "last", "updates"]


def lines_of(runs: int, layers: list[int], long: int = 200) -> list[str]:
    rows = [[f"{number}/{'x' * long}/{number}", str(layers[number]), "50.00", "10", "50.00", "10"] for number in range(runs)]  # fmt: skip  # noqa: E501
    settings = [["gradient_checkpointing", *(f"/{number}{'y' * long}" for number in range(runs))]]
    return comparison_lines("score", [HEAD, *rows], settings, [([10.0], [50.0])] * runs).splitlines()


@pytest.mark.parametrize("runs", [2, 3])
def test_a_few_runs_fit(runs: int) -> None:
    lines = lines_of(runs, [0, 1, 2])
    assert 90 < max(map(len, lines)) <= 100
    (row,) = [line for line in lines if line.startswith("b  1/")]
    assert "..." in row and row.split()[1].endswith("/1") and row.split()[2] == "1"


def test_of_many_each_has_something_left() -> None:
    (row,) = [line for line in lines_of(20, [0] * 20) if line.startswith("gradient")]
    assert all(12 == len(cell) for cell in row.split()[1:])


def test_short_words_are_whole() -> None:
    assert not [line for line in lines_of(3, [0, 1, 2], long=3) if "..." in line]


def test_what_is_the_same_of_all_stands_above() -> None:
    lines = lines_of(3, [7, 7, 7])
    place = lines.index("of all runs: K 7, best 50.00, after 10, last 50.00, updates 10")
    assert lines[place + 1].split() == ["run"] and len(lines[place + 2].split()) == 2
    assert not [line for line in lines_of(3, [0, 7, 7]) if line.startswith("of all runs: K")]
