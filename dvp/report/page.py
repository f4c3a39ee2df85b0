"""What all pages share: one file without network, with its style, tables and charts inside."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from dvp.files import write_whole
from dvp.report.chart import Chart

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }
h1 { font-size: 1.6em; line-height: 1.2; overflow-wrap: anywhere } h2 { font-size: 1.2em; margin-top: 2em }
table { border-collapse: collapse; width: 100% } td, th { padding: .2em .9em .2em 0; border-bottom: 1px solid #ddd }
td, th { text-align: left; vertical-align: top } td:last-child { overflow-wrap: anywhere }
.wide { overflow-x: auto; margin: 1em 0 } .verdict { font-size: 1.3em }
svg { width: 100%; min-width: 36em; display: block } svg text { font: 11px system-ui, sans-serif }
svg text.title { font-size: 14px; font-weight: 600 }
pre { background: #f5f5f5; padding: .8em; white-space: pre-wrap; overflow-wrap: anywhere }
"""


def write_page(path: Path, title: str, body: Sequence[str], style: str = "") -> None:
    """Write a page of this title and of these parts, HTML; raises UserError where the place cannot be written."""
    text = page(title, body, style)
    write_whole(path, lambda place: place.write_text(text, encoding="utf-8"))


def page(title: str, body: Sequence[str], style: str = "") -> str:
    """A page as HTML: its title above its parts."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>{escape(title)}</title><style>{STYLE}{style}</style>"
    parts = "\n".join([f"<h1>{escape(title)}</h1>", *body])
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{parts}\n</body></html>\n'


def table(rows: Sequence[Sequence[str]], headed: bool = False) -> str:
    """The rows as an HTML table, the first its head if `headed`."""
    lines = []
    for number, row in enumerate(rows):
        tag = "th" if headed and number == 0 else "td"
        lines.append("<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>")
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def to_repeat(command: str, about: Mapping[str, str]) -> list[str]:
    """The part of a page on how to repeat a run: its command, when and where it ran, with which versions."""
    return ["<h2>To repeat it</h2>", f"<pre>{escape(command)}</pre>", table(list(about.items()))]


def shown(chart: Chart) -> str:
    """The chart on a page: on a phone it is moved sideways rather than made too small to read."""
    return f'<div class="wide">{chart.svg()}</div>'
