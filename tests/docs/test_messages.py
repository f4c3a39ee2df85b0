"""Troubleshooting by message: what the pages list is what the source raises."""

import html
import re
from pathlib import Path

import pytest

from docs import messages as source
from docs.messages import MADE_BY, ROOT, messages, sources
from docs.pages import all_messages, troubles

RAISED = re.compile(r"(?<!class )\b(UserError|NotNow)\(")  # in the text, where the list is read from the syntax
ENTRY = re.compile(r"^- <code>(.*)<strong>(.*)</strong></code>", re.MULTILINE)
MESSAGES = messages()
LISTED = {html.unescape("".join(parts)).strip() for parts in ENTRY.findall(all_messages())}  # as a reader sees them


def test_every_place_that_raises_one_is_known() -> None:
    lines = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8").splitlines() for path in sources()}
    raised = {(file, n): line for file, text in lines.items() for n, line in enumerate(text, 1) if RAISED.search(line)}
    unknown = [raised[place] for place in raised.keys() - {(one.file, one.line) for one in MESSAGES}]
    assert len(raised) > 250 and not [line for line in unknown if not any(name in line for name in MADE_BY)]


def test_the_page_lists_all_of_them_and_no_other() -> None:
    assert LISTED == {message.shown for message in MESSAGES}


def test_longer_help_is_of_messages_that_there_are_and_a_sentence_at_least() -> None:
    assert not troubles().keys() - LISTED
    sections = re.split(r"^## ", (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(sections) > 25
    for section in sections[1:]:
        _, quoted, help_ = re.split(r"\A.*\n\n((?:> .*\n\n)+)", section, maxsplit=1)
        assert quoted and len(help_.split()) > 15, section


@pytest.mark.parametrize(
    "code, shown",
    [
        ('UserError("nothing here: put one.")', "nothing here: put one."),
        ("UserError(f\"{path.name} is {1 + 2}: take {config['task']}.\")", "<name> is ...: take <task>."),
        ('UserError(f"{AGAIN}, or leave it.")', "begin again, or leave it."),
        ("UserError(words)", None),
    ],
)
def test_a_new_one_is_listed_or_asked_after(
    code: str, shown: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "dvp" / "new.py"
    file.parent.mkdir()
    file.write_text(f'AGAIN = "begin again"\n\n\ndef ask():\n    raise {code}\n', encoding="utf-8")
    monkeypatch.setattr(source, "sources", lambda: [file])
    monkeypatch.setattr(source, "ROOT", tmp_path)
    if shown is None:
        with pytest.raises(KeyError, match="words"):
            messages()
    else:
        (message,) = (one for one in messages() if one.file == "dvp/new.py")
        assert (message.shown, message.function, message.line) == (shown, "ask", 5)
