"""search.html: one file that shows what the search found, from its record alone."""

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from dvp.report.chart import Chart, Line
from dvp.report.search import charts, search_lines, search_page
from dvp.search import RULES

SCORES = [40.0, 45.0, 55.0]


def record(kab: str, scorings: int) -> dict[str, Any]:
    """The record of a search whose third arm is the best."""
    rule = RULES[kab](3, 0)
    for number in range(scorings):
        arms = rule.scored(5)
        rule.update(arms, [SCORES[arm] + (number + arm) % 3 for arm in arms])
    updates = rule.every * scorings + 10  # the first ten were not scored
    run = {"finished": True, "as_published": False, "updates": updates, "seconds": 12.3}
    return run | rule.summary() | {"config": {"exp_name": "<dvp>", "datasets": "vqa", "seed": 0}}


@pytest.mark.parametrize("scorings", [0, 1, 2, 45, 400])
@pytest.mark.parametrize("kab", RULES)
def test_the_page_is_whole_and_needs_nothing_beside_itself(kab: str, scorings: int) -> None:
    search = record(kab, scorings)
    page = search_page(search)
    assert not re.search(r"(src|href)=|url\(|@import|<script", page)
    assert "<dvp>" not in page and "&lt;dvp&gt;" in page
    assert f"{search['updates']} updates in 12 s" in page
    assert ("below 0.6 the search warns" in page) == (kab == "published")
    pictures = re.findall(r"<svg.*?</svg>", page)
    assert len(pictures) == 2
    for picture in pictures:
        ElementTree.fromstring(picture)  # well-formed
        assert "nan" not in picture
        assert ("layer 2" in picture) == (scorings > 0)


@pytest.mark.parametrize("kab", RULES)
def test_in_letters_layers_are_called_by_their_numbers(kab: str) -> None:
    _, title, *rows, axis = search_lines(record(kab, 45)).splitlines()
    assert "mean score of each layer" in title and "is layer" not in title and len(rows) < 12
    assert rows[0].endswith("2") and "0" in rows[-1].partition("|")[2] and f"{record(kab, 45)['updates']} up" in axis
    assert search_lines(record(kab, 0)) == ""


def test_beyond_nine_layers_have_letters() -> None:
    trace = [{"arms": list(range(12)), "scores": [float(arm) for arm in range(12)]}] * 4
    search = {"trace": trace, "mean_scores": list(range(12)), "updates": 8, "scored_every": 2, "insert_layer": 11}
    text = search_lines(search | {"z": [0.0] * 12, "decided": False})
    assert "a is layer 10, b is layer 11" in text and re.search(r"\| +b+$", text, re.MULTILINE)


def test_lines_follow_the_updates_and_end_where_the_record_does() -> None:
    search = record("mean", 45)
    means, leads = charts(search).values()
    assert [line.y[-1] for line in means.lines] == pytest.approx(search["mean_scores"])
    assert [line.y[-1] for line in leads.lines] == pytest.approx(search["z"])
    assert means.lines[0].x == [10 + 2 * scoring for scoring in range(1, 46)]
    assert means.moments == leads.moments == {"decided": search["updates"]}
    assert [line.bold for line in means.lines] == [False, False, True]
    assert all(min(line.band[2:]) > 0 for line in means.lines)


def test_the_policy_is_drawn_as_it_was() -> None:
    search = record("published", 300)
    _, policy = charts(search).values()
    assert [line.y[-1] for line in policy.lines] == pytest.approx(search["probabilities"])
    first = [line.y[0] for line in policy.lines]
    assert first == pytest.approx([1 / 3] * 3, abs=0.01) and sum(first) == pytest.approx(1)
    assert not policy.moments


def test_a_chart_puts_points_where_they_are() -> None:
    chart = Chart("a < b", "x", [Line("one", [0, 10], [0, 4], [1, 1])], {"level": 2.0}, {"then": 5.0})
    paths = [path.get("d") for path in ElementTree.fromstring(chart.svg()).iter("path")]
    # 56 to 670 across, 260 to 28 up for -1 to 5
    assert "M56.0,221.3L670.0,66.7" in paths
    assert "M56.0,182.7L670.0,28.0L670.0,105.3L56.0,260.0Z" in paths
    assert "M56.0,144.0L670.0,144.0" in paths  # the level
    assert "M363.0,260.0L363.0,28.0" in paths  # the moment


def test_names_of_lines_that_end_together_can_be_read() -> None:
    lines = [Line(f"line {number}", [0, 1], [0, 5], colour=number) for number in range(4)]
    texts = ElementTree.fromstring(Chart("", "x", lines).svg()).iter("text")
    places = sorted(float(text.get("y")) for text in texts if (text.text or "").startswith("line"))
    assert len(places) == 4 and all(low + 12 <= high for low, high in zip(places, places[1:], strict=False))
