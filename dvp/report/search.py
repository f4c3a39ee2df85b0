"""search.html: what a search found and how it came about, on one page made from its search.json."""

from html import escape
from pathlib import Path
from typing import Any

from dvp.files import write_whole
from dvp.report.chart import Chart, Line
from dvp.search import KArmedBandit
from dvp.search.mean import AS_GOOD, DECIDED, standings

POINTS = 120  # of a line
SETTINGS = ("datasets", "language_model", "tokenizer", "clip_model", "use_adapter", "data_root", "batch_size",
            "learning_rate", "image_tokens", "seed")  # fmt: skip
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 }
td, th { padding: .2em .9em; border-bottom: 1px solid #ddd; text-align: left }
.verdict { font-size: 1.3em } svg { width: 100%; margin: 1em 0 } svg text { font: 11px system-ui, sans-serif }
svg .title { font-size: 14px; font-weight: 600 } .grid { stroke: #eee } .mark { stroke: #999; stroke-dasharray: 4 3 }
"""


def write_search_page(path: Path, search: dict[str, Any], trained: list[list[str]] | None = None) -> None:
    """Write the page of a search, given as what search.json holds, and of what was trained from it, as rows."""
    write_whole(path, lambda place: place.write_text(search_page(search, trained), encoding="utf-8"))


def search_page(search: dict[str, Any], trained: list[list[str]] | None = None) -> str:
    """The page of a search as HTML, charts inline."""
    name = escape(str(search["config"].get("exp_name", "")))
    body = [f"<h1>Search of K: {name}</h1>", f'<p class="verdict">{escape(search["verdict"])}</p>', _facts(search)]
    body += ["<h2>Trained from its weights</h2>", table(trained)] if trained else []
    body += [_arms(search)] + [chart.svg() for chart in charts(search)]
    settings = {key: search["config"][key] for key in SETTINGS if key in search["config"]}
    body += ["<h2>Settings</h2>", table([[key, str(value)] for key, value in settings.items()])]
    head = f'<meta charset="utf-8"><title>Search of K: {name}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n'


def charts(search: dict[str, Any]) -> list[Chart]:
    """Mean scores over the updates, then what the rule went by: the leads (mean) or the policy (published)."""
    moments = {"decided": search["updates"]} if "z" in search and search["decided"] else {}
    means = Chart(
        "mean score of each layer, over the last half of what was scored", "updates", _means(search), {}, moments
    )
    if "z" in search:
        levels = {f"decided at {DECIDED:g}": DECIDED, f"as good below {AS_GOOD:g}": AS_GOOD}
        return [
            means,
            Chart("the leader's lead over each layer, in standard errors", "updates", _leads(search), levels, moments),
        ]
    return [means, Chart("probability of each layer", "updates", _policy(search))]


def _facts(search: dict[str, Any]) -> str:
    ended = "ran to its end or was decided" if search["finished"] else "was not finished"
    stamp = " as published;" if search["as_published"] else ""
    words = f"kab={search['kab']};{stamp} {search['updates']} updates in {search['seconds']:.0f} s; the search {ended}."
    return f"<p>{escape(words)}</p>"


def _arms(search: dict[str, Any]) -> str:
    name, column = ("z", search["z"]) if "z" in search else ("probability", search["probabilities"])
    rows = [["layer", "mean score", name, "times scored", "standing"]]
    for arm, (mean, value, count) in enumerate(zip(search["mean_scores"], column, search["counts"], strict=True)):
        numbers = ["" if number is None else f"{number:.2f}" for number in (mean, value)]
        rows.append([str(arm), *numbers, str(count), _standing(search, arm)])
    return table(rows, headed=True)


def _standing(search: dict[str, Any], arm: int) -> str:
    if arm == search["insert_layer"]:
        return "leads" if search["found"] else "leads, within noise"
    if "candidates" in search:
        return "candidate" if arm in search["candidates"] else "worse"
    return ""


def table(rows: list[list[str]], headed: bool = False) -> str:
    """The rows as an HTML table, the first its head if `headed`."""
    lines = []
    for number, row in enumerate(rows):
        tag = "th" if headed and number == 0 else "td"
        lines.append("<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


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
