"""search.html: what a search found and how it came about, on one page made from its search.json."""

import string
from collections.abc import Iterable
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from dvp.report.chart import LETTERS, Chart, Line
from dvp.report.page import page, shown, table, to_repeat, write_page
from dvp.report.pictures import write_pictures
from dvp.search import KArmedBandit, write_search
from dvp.search.bandit import SURE
from dvp.search.mean import AS_GOOD, DECIDED, standings

PAGE = "search.html"
POINTS = 120  # of a line
NUMBERED, LOW = string.digits + LETTERS, 6  # what layers are called in letters, and the rows of such a chart
SETTINGS = ("kab", "datasets", "language_model", "tokenizer", "clip_model", "use_adapter", "data_root", "batch_size",
            "learning_rate", "max_epoch", "max_steps", "image_tokens", "seed")  # fmt: skip
Z = (
    "z: by how many of its standard errors the leader's mean is ahead of the layer's, over the last half of the scored "
    f"batches. Below {AS_GOOD:g} the layer may be as good; {DECIDED:g} of one that is far behind decide the search."
)
PROBABILITY = (
    "probability: how often the search would draw the layer by now, all alike at the start. It tells how far the "
    f"scores have moved it, not how likely the layer is the best; where the leader's is below {SURE:g} the search "
    "warns, since another was then too often the better one in trials."
)
# What later commands add to search.json, as rows of a table
LATER = {"trained": "Trained from its weights", "swept": "Trained at {swept_at}"}


def report_search(folder: Path, search: dict[str, Any], loggers: Iterable[Any]) -> None:
    """Write the page of a search, and its charts as pictures, into its folder and to those loggers that take them."""
    write_page(folder / PAGE, _title(search), _body(search))
    write_pictures(folder, charts(search), loggers, search["updates"])


def update_search(record: Path, search: dict[str, Any]) -> Path:
    """The page of a search, which is written anew, as is its record: what a later command has learnt of it is there."""
    write_search(record, search)
    page = record.with_name(PAGE)
    write_page(page, _title(search), _body(search))
    return page


def search_page(search: dict[str, Any]) -> str:
    """The page of a search as HTML, charts inline."""
    return page(_title(search), _body(search))


def _title(search: dict[str, Any]) -> str:
    return f"Search of K: {search['config'].get('exp_name', '')}"


def _body(search: dict[str, Any]) -> list[str]:
    body = [f'<p class="verdict">{escape(search["verdict"])}</p>', _facts(search)]
    for key, heading in LATER.items():
        heading = heading.format(swept_at=search.get("swept_at", "the layers of a sweep"))  # older ones do not tell
        body += [f"<h2>{heading}</h2>", table(search[key])] if key in search else []
    body += [_arms(search), *map(shown, charts(search).values())]
    settings = {key: search["config"][key] for key in SETTINGS if key in search["config"]}
    if "next" in search:
        body += [f"<h2>To go on</h2><p>Its checkpoint: {escape(search['checkpoint'])}</p>"]
        body += [f"<pre>{escape(search['next'])}</pre>"]
    body += ["<h2>Settings</h2>", table([[key, str(value)] for key, value in settings.items()])]
    if "command" not in search:  # older, or not of a command
        return body
    return [*body, *to_repeat(search["command"], search["about"])]


def charts(search: dict[str, Any]) -> dict[str, Chart]:
    """Mean scores over the updates, then what the rule went by: the leads (mean) or the policy (published)."""
    moments = {"decided": search["updates"]} if "z" in search and search["decided"] else {}
    title = "mean score of each layer, over the last half of what was scored"
    means = {"scores": Chart(title, "updates", _means(search), {}, moments)}
    if "z" in search:
        levels = {f"decided at {DECIDED:g}": DECIDED, f"as good below {AS_GOOD:g}": AS_GOOD}
        title = "the leader's lead over each layer, in standard errors"
        return means | {"leads": Chart(title, "updates", _leads(search), levels, moments)}
    return means | {"policy": Chart("probability of each layer", "updates", _policy(search))}


def search_lines(search: dict[str, Any]) -> str:
    """The mean scores over the updates in letters, a layer's number for each; empty where each is a single point."""
    chart = charts(search)["scores"]
    if not any(len(line.x) > 1 for line in chart.lines):
        return ""
    named = [f"{letter} is layer {arm}" for arm, letter in enumerate(NUMBERED[: len(chart.lines)]) if arm > 9]
    title = ", ".join([chart.title, *named[:1], *named[1:][-1:]])
    return "\n" + replace(chart, title=title).text(rows=LOW, letters=NUMBERED)


def _facts(search: dict[str, Any]) -> str:
    ended = "ran to its end" if search["finished"] else "was not finished"
    if search["finished"] and search["kab"] == "mean" and search["decided"]:
        ended = "was decided"
    stamp = " as published;" if search["as_published"] else ""
    cost = f"{search['updates']} updates in {search['seconds']:.0f} s"
    cost += f", {search['flops']:.3g} counted floating-point operations" if "flops" in search else ""
    words = f"kab={search['kab']};{stamp} {cost}; the search {ended}."
    return f"<p>{escape(words)}</p>"


def _arms(search: dict[str, Any]) -> str:
    name, column = ("z", search["z"]) if "z" in search else ("probability", search["probabilities"])
    rows = [["layer", "mean score", name, "times scored", "standing"]]
    for arm, (mean, value, count) in enumerate(zip(search["mean_scores"], column, search["counts"], strict=True)):
        numbers = ["" if number is None else f"{number:.2f}" for number in (mean, value)]
        rows.append([str(arm), *numbers, str(count), _standing(search, arm)])
    return table(rows, headed=True) + f"<p>{Z if name == 'z' else PROBABILITY}</p>"


def _standing(search: dict[str, Any], arm: int) -> str:
    if arm == search["insert_layer"]:
        return "leads" if search["found"] else "leads, within noise"
    if "candidates" in search:
        return "candidate" if arm in search["candidates"] else "worse"
    return ""


def _points(search: dict[str, Any]) -> list[int]:
    """After how many scorings a line has a point: all, or evenly so many, the last among them."""
    count = len(search["trace"])
    return sorted({max(1, round(count * point / POINTS)) for point in range(1, POINTS + 1)}) if count else []


def _updates(search: dict[str, Any], scorings: int) -> int:
    """The update that a scoring followed; warm-up goes before the first."""
    return search["updates"] - (len(search["trace"]) - scorings) * search["scored_every"]


def _means(search: dict[str, Any]) -> list[Line]:
    lines: list[Line] = []
    for arm in range(len(search["mean_scores"])):
        x, y, band = [], [], []
        for end in _points(search):
            window = search["trace"][end // 2 : end]
            scores = [s for entry in window for a, s in zip(entry["arms"], entry["scores"], strict=True) if a == arm]
            if scores:
                mean = sum(scores) / len(scores)
                spread = (sum((score - mean) ** 2 for score in scores) / max(1, len(scores) - 1)) ** 0.5
                x.append(_updates(search, end))
                y.append(mean)
                band.append(2 * spread / len(scores) ** 0.5)
        lines.append(Line(f"layer {arm}", x, y, band, arm, arm == search["insert_layer"]))
    return lines


def _leads(search: dict[str, Any]) -> list[Line]:
    ends = _points(search)
    found = [standings(search["trace"][:end]).z for end in ends]
    x = [_updates(search, end) for end in ends]
    return [
        Line(f"layer {arm}", x, [z[arm] for z in found], (), arm, arm == search["insert_layer"])
        for arm in range(len(search["mean_scores"]))
    ]


def _policy(search: dict[str, Any]) -> list[Line]:
    """The policy is not written down at every update: the same arithmetic gives it again."""
    bandit, ends = KArmedBandit(len(search["mean_scores"]), step_size=search["step_size"]), set(_points(search))
    x, policies = [], []
    for number, entry in enumerate(search["trace"], 1):
        bandit.update(entry["arms"], entry["scores"])
        if number in ends:
            x.append(_updates(search, number))
            policies.append(bandit.probabilities.tolist())
    return [
        Line(f"layer {arm}", x, [policy[arm] for policy in policies], (), arm, arm == search["insert_layer"])
        for arm in range(len(search["mean_scores"]))
    ]
