"""report.html: groups, curves and examples, of what was collected of a training."""

import io
import re
from pathlib import Path

import pytest
from PIL import Image

from dvp.report.training import (
    GROUPS,
    LINE,
    POINTS,
    SHEETS,
    Example,
    Scored,
    Training,
    by_group,
    by_length,
    heat_maps,
    read_metrics,
    report_training,
    training_charts,
    training_lines,
)


def jpeg() -> bytes:
    Image.new("RGB", (8, 8), "red").save(buffer := io.BytesIO(), "JPEG")
    return buffer.getvalue()


def test_groups_are_the_largest_first_and_the_rest_is_one() -> None:
    scored = [Scored(f"group {number}", (), 0.5) for number in range(20) for _ in range(30 - number)]
    scored.append(Scored("group 19", (), 1.0))
    groups = by_group(scored)
    assert [group.name for group in groups] == [*(f"group {number}" for number in range(GROUPS)), "8 others"]
    assert groups[0][1:] == (30, 50.0) and groups[-1].count == sum(30 - n for n in range(GROUPS, 20)) + 1
    assert groups[-1].score == pytest.approx(50 + 50 / groups[-1].count)


def test_lengths_are_those_of_the_likeliest_right_answer() -> None:
    answers = [("red",), ("left side", "red"), (), ("a b c d e f",), ("a b c d e",)]
    scored = [Scored("", right, float(place)) for place, right in enumerate(answers)]
    assert by_length(scored) == [("1", 1, 0), ("2", 1, 100), ("5 and more", 2, 350), ("none in the vocabulary", 1, 200)]


def test_curves_are_those_of_the_table_and_no_longer_than_can_be_seen(tmp_path: Path) -> None:
    rows = ["epoch,step,vqa/train/loss,lr-AdamW/pg1,lr-AdamW/pg2,vqa/rest_val/score,as_published"]
    rows += [f"0,{10 * n - 1},{n},0.1,{'0.1' if n < 500 else '0.2'},," for n in range(1, 1001)]
    rows += ["0,9999,nan,,,,", "0,9999,,,,40.5,1.0"]
    (tmp_path / "metrics.csv").write_text("\n".join(rows))
    columns = read_metrics(tmp_path / "metrics.csv")
    assert columns["vqa/rest_val/score"] == ([10_000], [40.5]) and len(columns["vqa/train/loss"][1]) == 1000
    charts = training_charts(columns, "score", 10_000)
    assert list(charts) == ["loss", "metric", "learning_rate"]
    (loss,) = charts["loss"].lines
    assert len(loss.x) == POINTS and loss.y[0] == 3.0 and loss.x[0] == 30.0  # the mean of five
    assert [line.name for line in charts["learning_rate"].lines] == ["group 1", "group 2"]
    assert charts["metric"].moments == {"best": 10_000} and charts["metric"].lines[0].name == "rest_val"
    assert training_charts({}, "score", None) == {}


def test_in_letters_loss_and_metric_stand_beside_each_other() -> None:
    loss, val, dev = ([10, 20], [3.0, 1.0]), ([10, 20], [40.0, 60.0]), ([10, 20], [45.0, 50.0])
    columns = {"gqa/train/loss": loss, "gqa/val/accuracy": val, "gqa/test-dev/accuracy": dev}
    head, *rows, axis = training_lines(training_charts(columns, "accuracy", None)).splitlines()
    assert head.split("   ")[0] == "loss of the training rows" and head.endswith("percent: a val, b test-dev")
    assert len(rows) < 12 and max(map(len, [head, *rows, axis])) <= 80 and axis.count("20 updates") == 2
    assert [rows[0].split()[0], rows[-1].split()[0]] == ["3", "1"] and rows[0].endswith("a") and rows[-1].endswith("a")
    (alone,) = training_lines(training_charts({"gqa/train/loss": loss}, "accuracy", None)).splitlines()[:1]
    assert alone == "loss of the training rows"


def test_a_single_point_is_no_plot() -> None:
    assert training_lines(training_charts({"vqa/train/loss": ([10], [3.0])}, "score", None)) == ""
    assert training_lines({}) == ""


def test_the_page_is_whole_needs_nothing_beside_itself_and_takes_any_text(tmp_path: Path) -> None:
    one = Example("Is <b> it?", "<yes>", ("no", "<i>"), 0.3, (jpeg(), jpeg()))
    training = Training(
        title="<run>", verdict="good & bad", ask="predict <it>", command="python run.py with 'a b'",
        facts={"trains": "<all>"}, about={"torch": "2"}, charts={}, groups="<subject>", answered="all",
        scored=[Scored("<g>", ("no",), 0.3)], examples=[one, Example("none", "red", (), 1.0, ())],
    )  # fmt: skip
    report_training(tmp_path, training, [], 1)
    page = (tmp_path / "report.html").read_text()
    assert not re.search(r"href=|url\(|@import|<script|src=\"(?!data:)", page)
    for text in ("run", "all", "subject", "g", "yes", "i", "it"):
        assert f"<{text}>" not in page and f"&lt;{text}&gt;" in page
    assert "<details>" not in page and heat_maps(training.examples) == {}
    right, wrong = page.split("Answers that are right")[1].split("Answers that are wrong")
    assert (
        wrong.count("data:image/jpeg") == 2
        and "<small>score 30 %</small>" in wrong
        and "right: no or &lt;i&gt;" in wrong
    )
    assert "none in the vocabulary" in right and "data:" not in right


def test_heads_are_folded_away_and_some_stand_on_one_picture(tmp_path: Path) -> None:
    examples = [Example(f"{n}?", "a", ("a",), score, (jpeg(),) * 3) for score in (1.0, 0.0) for n in range(SHEETS + 1)]
    training = Training("run", "", "", "", {}, {}, {}, "", "", [Scored("g", ("a",), 1.0)], examples)
    report_training(tmp_path, training, [], 1)
    page = (tmp_path / "report.html").read_text()
    assert page.count("<details><summary>by heads</summary><img") == len(examples)
    with Image.open(tmp_path / "report" / "heat_maps.png") as sheet:
        assert sheet.size == (8, 2 * SHEETS * (8 + LINE))
        red = [y for y in range(sheet.height) if sheet.getpixel((0, y))[0] > 200 > sheet.getpixel((0, y))[1]]
    assert red == [n * (8 + LINE) + LINE + y for n in range(2 * SHEETS) for y in range(8)]
