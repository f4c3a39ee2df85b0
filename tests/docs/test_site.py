"""The site: it is built without a warning and without a network, and asks none when it is looked at."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.messages import ROOT
from docs.pages import ELSEWHERE, generated

pytest.importorskip("material", reason="the site's packages are not here: make docs installs them")
pytest.importorskip("mkdocstrings", reason="the site's packages are not here: make docs installs them")
FETCHED = re.compile(r"<(?:script|img|iframe|source)[^>]*\ssrc=\"?(\S+?)[\">]|<link[^>]*\shref=\"?(\S+?)[\">]")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    ended = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder


def test_every_page_is_there(site: Path) -> None:
    pages = {*generated(), *ELSEWHERE.values(), "start.md", "method.md", "tasks/vqa.md", "own_data.md"}
    assert not [page for page in pages if not (site / page).with_suffix(".html").is_file()]


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        fetched = ["".join(found) for found in FETCHED.findall(page.read_text(encoding="utf-8"))]
        assert fetched and not [place for place in fetched if re.match(r"(https?:)?//", place)], page
    assert not [file for file in site.rglob("*.css") if re.search(r"url\(.?https?:|@import", file.read_text())]


def test_links_between_files_are_links_between_pages(site: Path) -> None:
    page = (site / "method.html").read_text(encoding="utf-8")
    assert 'href="python/model.html"' in page and 'href="index.html#as-published"' in page
    task = (site / "tasks" / "vqa.html").read_text(encoding="utf-8")
    assert 'href="../data.html#vqav2"' in task and 'href="../experiments.html"' in task


def test_the_reference_has_signatures_shapes_and_source(site: Path) -> None:
    text = re.sub(r"<[^>]+>", "", (site / "python" / "model.html").read_text(encoding="utf-8"))
    assert "Logits (R, C) of the batch with the prompt put in before layer insert_layer." in text
    assert "Source code in dvp/model.py" in text and "forward_arms" in text


def test_the_search_knows_messages_and_settings(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    found = {entry["location"]: entry["text"] for entry in index["docs"]}
    assert "settings.html#insert_layer" in found
    assert "change one so that the updates accumulate" in found["messages.html#the-command-line-and-settings"]
