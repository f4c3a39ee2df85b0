"""The page in Chromium, as wide as a phone and as a desk's screen: what a person does, and what then stands there.

`make test-browser` installs what it needs. Pictures of the screen are kept where DVP_SCREENSHOTS names a folder.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_world import picture

import dvp
from dvp.answering import Answering

WHY = "the browser's tests need Gradio, Playwright and Chromium: make test-browser"
pytest.importorskip("gradio", reason=WHY)
playwright = pytest.importorskip("playwright.sync_api", reason=WHY)
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=WHY)

from playwright.sync_api import Browser, Page, expect  # noqa: E402

from dvp.page.layout import build_page, serve  # noqa: E402

ROOT = Path(__file__).parents[2]
WIDTHS = {"phone": (390, 844), "desk": (1280, 900)}
QUESTION = "is there a red circle"
LONGEST = 30_000  # ms that anything may take on a busy machine


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(params=WIDTHS)
def visit(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Callable[[str], Page]]:
    """Opens an address; afterwards nothing else was asked for, and all lies where there is room for it."""
    width, height = WIDTHS[request.param]
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(LONGEST)
    asked: list[str] = []
    page.on("request", lambda sent: asked.append(sent.url))

    def open_(address: str) -> Page:
        page.goto(address)
        page.get_by_label("Question").wait_for()
        return page

    yield open_
    if folder := os.environ.get("DVP_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{request.node.name}.png", full_page=True)
    assert {url.split("/")[2].partition(":")[0] for url in asked if url.startswith(("http", "ws"))} == {"127.0.0.1"}
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    picture, answers = (page.locator(place).bounding_box() for place in ("#picture", "#answers"))
    if request.param == "phone":
        assert picture["y"] + picture["height"] <= answers["y"] and picture["width"] > 0.7 * width
    else:  # side by side
        assert picture["x"] + picture["width"] <= answers["x"] and picture["width"] > 0.3 * width
    page.close()


@pytest.fixture
def served(free_port: int) -> Iterator[Callable[[Answering], str]]:
    """Serves the page of a model; its address."""
    pages: list[Any] = []

    def start(answering: Answering) -> str:
        pages.append(build_page(answering))
        return serve(pages[-1], "127.0.0.1", free_port)

    yield start
    for page in pages:
        page.close()


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(picture(1))
    return tmp_path / "a.png"


def choose(page: Page, upload: Path) -> None:
    """Give the page a picture."""
    page.set_input_files("#picture input[type=file]", upload)
    expect(page.locator("#picture img")).to_be_visible(timeout=LONGEST)


def clear(page: Page) -> None:
    """Take the picture away."""
    page.locator("#picture").get_by_role("button", name=re.compile("Clear|Remove")).first.click()


def ask(page: Page, question: str) -> None:
    """Type a question and press the button."""
    page.get_by_label("Question").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()


def expect_bars(page: Page, bars: dict[str, float]) -> None:
    """The answers on the page are these, with their probabilities."""
    lines = [text for name, chance in bars.items() for text in (name, f"{100 * chance:.0f}%")]
    pattern = re.compile(r"\s*".join(map(re.escape, ["Answers", next(iter(bars)), *lines])))
    expect(page.locator("#answers")).to_have_text(pattern, timeout=LONGEST)


def test_a_picture_is_asked_and_its_answer_is_the_models(checkpoint, served, visit, upload) -> None:
    model = dvp.load(checkpoint("dvp_adaption_bert_vqa"))
    page = visit(served(model))
    choose(page, upload)
    ask(page, QUESTION)
    expect_bars(page, dict(model.answer(upload, QUESTION).candidates))
    expect(page.locator("#panels figure img")).to_have_count(5)
    assert page.locator("#panels img").evaluate_all("all => all.every(one => one.naturalWidth > 100)")
    assert not page.get_by_role("slider").is_visible()
    clear(page)
    expect(page.locator("#panels figure")).to_have_count(0)  # what is no longer asked is not answered


def test_the_slider_moves_the_layer(checkpoint, served, visit, upload) -> None:
    model = dvp.load(checkpoint("dvp_search_bert_vqa", search_sample="all"))
    page = visit(served(model))
    choose(page, upload)
    ask(page, QUESTION)
    expect_bars(page, dict(model.answer(upload, QUESTION).candidates))
    slider = page.get_by_role("slider")
    for layer in (0, model.layers[-1]):
        slider.focus()
        slider.press("Home" if layer == 0 else "End")
        expect_bars(page, dict(model.answer(upload, QUESTION, insert_layer=layer).candidates))


def test_science_qa_takes_choices_and_shows_what_it_writes(science, checkpoint, served, visit, upload) -> None:
    model = dvp.load(checkpoint("dvp_adaption_llama_sqa", prompt_format="QCM-ALE", **science[1]), max_new_tokens=12)
    page = visit(served(model))
    choose(page, upload)
    page.get_by_label("Choices").fill("red\nblue")
    page.get_by_label("Hint").fill("Look at the square .")
    ask(page, "Which colour is it ?")
    answer = model.answer(upload, "Which colour is it ?", ["red", "blue"], "Look at the square .")
    expect_bars(page, dict(answer.candidates))
    expect(page.locator("#written textarea")).to_have_value(answer.written)
    expect(page.locator("#written")).to_contain_text(f"({answer.letter})" if answer.letter else "no choice")


def test_an_example_is_asked_when_it_is_clicked_on(checkpoint, served, visit) -> None:
    from dvp.page.examples import find_examples

    model = dvp.load(checkpoint("dvp_adaption_bert_vqa"))
    page = visit(served(model))
    first = find_examples(model)[0]
    page.locator("#examples tbody tr").first.click()
    expect_bars(page, dict(model.answer(first.image, first.question).candidates))
    expect(page.get_by_label("Question")).to_have_value(first.question)


BAD: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "none.png": (lambda path: path.write_bytes(b"hello"), QUESTION, "none.png is truncated or no picture"),
    "large.png": (lambda path: Image.new("1", (20_000, 5_000)).save(path), QUESTION, "large.png is too large"),
    "silent.png": (lambda path: path.write_bytes(picture(1)), " ", "The question is empty"),
}


def test_what_is_wrong_is_a_sentence_on_the_page(checkpoint, served, visit, tmp_path: Path) -> None:
    page = visit(served(dvp.load(checkpoint("dvp_adaption_bert_vqa"))))
    for name, (make, question, sentence) in BAD.items():
        make(tmp_path / name)
        page.set_input_files("#picture input[type=file]", tmp_path / name)
        page.locator("#picture img").wait_for(state="attached")
        ask(page, question)
        expect(page.locator("#note textarea")).to_have_value(re.compile(sentence), timeout=LONGEST)
        assert "Traceback" not in page.content()
        clear(page)


def test_a_file_over_the_limit_is_not_taken(checkpoint, served, visit, upload, monkeypatch) -> None:
    from dvp.page import layout

    monkeypatch.setattr(layout, "MOST_BYTES", 1000)
    page = visit(served(dvp.load(checkpoint("dvp_adaption_bert_vqa"))))
    page.set_input_files("#picture input[type=file]", upload)
    expect(page.get_by_test_id("toast-body")).to_contain_text("maximum allowed size", timeout=LONGEST)


def test_the_command_serves_it_and_ends_with_ctrl_c(checkpoint, browser, free_port, upload) -> None:
    last = checkpoint("dvp_adaption_bert_vqa")
    words = ["demo", "with", f"load_path={last}", f"port={free_port}", "num_gpus=0"]
    command = [sys.executable, "-u", "run.py", *words]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        address = next(found[1] for line in running.stdout if (found := re.search(r"Ask it at (\S+)", line)))
        page = browser.new_page()
        page.goto(address)
        choose(page, upload)
        ask(page, QUESTION)
        expect_bars(page, dict(dvp.load(last).answer(upload, QUESTION).candidates))
        page.close()
        running.send_signal(signal.SIGINT)
        rest = running.stdout.read()
    assert running.returncode == 0 and "Traceback" not in rest
