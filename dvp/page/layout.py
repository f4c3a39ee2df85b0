"""The page itself: its fields, what happens when they change, and how it is served."""

import base64
import io
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from dvp.answering import Answering
from dvp.answering.heatmap import Panel
from dvp.images import MOST_BYTES
from dvp.page.asking import KEPT, Shown, ask
from dvp.page.examples import Example, find_examples, write_examples

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # nobody is told what is asked; Gradio looks while it is imported

import gradio as gr  # noqa: E402

WAITING = 16  # questions in the queue
# Whatever asks waits for its turn: what the model looked at is noted while it answers, one question at a time.
ASKS: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
HEADING = "What the prompt was made of"
LEGEND = "The largest weight of a patch is red and stands below, beside the weight of the class token."
STYLE = """
.gradio-container { width: 100%; max-width: 1200px !important; margin: auto; }
#picture img { width: 100%; height: 100%; object-fit: contain; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(120px, 1fr)); gap: 8px; }
.panels figure { margin: 0; }
.panels figure img { width: 100%; }
.panels figcaption { font-size: 12px; }
"""


def build_page(answering: Answering) -> gr.Blocks:
    """The page of a model. A field that the model does not take is not there; every change asks anew or clears."""
    os.environ["GRADIO_TEMP_DIR"] = _own_folder().name
    with gr.Blocks(title="Dynamic Visual Prompting", analytics_enabled=False, delete_cache=(KEPT, KEPT)) as page:
        gr.Markdown(f"## Ask a picture\n{_about(answering)}")
        with gr.Row(equal_height=False):
            with gr.Column():
                asked, button = _fields(answering)
            with gr.Column():
                shown = _outputs(answering)
        picture, question, *_, layer = asked

        def clear() -> list[Any]:
            return _updates(answering, Shown())

        def answer(upload: str | None, *texts_and_layer: Any) -> list[Any]:
            *texts, layer = texts_and_layer
            return _updates(answering, ask(answering, upload, *(text or "" for text in texts), layer))

        def again(upload: str | None, question: str | None, *rest: Any) -> list[Any]:
            return answer(upload, question, *rest) if question else clear()

        gr.on([button.click, question.submit], answer, asked, shown, **ASKS)
        layer.change(again, asked, shown, trigger_mode="always_last", **ASKS)
        gr.on([picture.upload, picture.clear], clear, None, shown, api_visibility="private")
        _examples(find_examples(answering), asked, shown, answer)
    return page.queue(max_size=WAITING, api_open=False)


def serve(page: gr.Blocks, host: str, port: int) -> str:
    """The address of the page, which from now on answers there, in threads; nothing but it is reached.

    `page.block_thread()` waits for its end.
    """
    logging.getLogger("httpx").setLevel(logging.WARNING)  # Gradio asks itself whether it is there
    without = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    os.environ["no_proxy"] = f"{without},localhost,127.0.0.1".lstrip(",")
    _, address, _ = page.launch(
        server_name=host, server_port=port, share=False, quiet=True, prevent_thread_lock=True, max_file_size=MOST_BYTES,
        footer_links=[], ssr_mode=False, enable_monitoring=False, mcp_server=False, pwa=False, css=STYLE,
    )  # fmt: skip
    return address


@cache
def _own_folder() -> tempfile.TemporaryDirectory:
    """Where this process keeps what is uploaded, for itself alone, until it ends.

    Gradio's own folder is one for all pages of a machine: whichever ends deletes what the others were given, too.
    """
    return tempfile.TemporaryDirectory(prefix="dvp-page-")


def _about(answering: Answering) -> str:
    config = answering.config
    of = f"{config['datasets']}, {config['language_model']}, K = {answering.insert_layer}"
    return f"`{config['exp_name']}` ({of}) answers{' without looking' if answering.blind else ''}."


def _fields(answering: Answering) -> tuple[list[Any], gr.Button]:
    """Picture, question, choices, hint and layer, in the order of `ask`, and what asks."""
    picture = gr.Image(
        label="Picture", show_label=False, sources=["upload", "clipboard"], buttons=[], height=280,
        visible=not answering.blind, elem_id="picture",
    )  # fmt: skip
    # The very file that was uploaded: Gradio would turn and save anew what is opened, or refused, where questions are.
    picture.preprocess = lambda payload: payload.path if payload else None
    question = gr.Textbox(label="Question", placeholder="What is on the sofa?", max_lines=4)
    written = answering.takes_choices
    choices = gr.Textbox(label="Choices, one a line", lines=3, max_lines=10, visible=written)
    hint = gr.Textbox(label="Hint", max_lines=6, visible=written)
    last = answering.model.num_layers - 1
    layer = gr.Slider(
        0, max(last, 1), answering.insert_layer if answering.searched else 0, step=1, visible=answering.searched,
        label="K: the prompt goes in before this layer", buttons=[],
        info=f"The search leads to {answering.insert_layer}.",
    )  # fmt: skip
    return [picture, question, choices, hint, layer], gr.Button("Ask", variant="primary")


def _outputs(answering: Answering) -> list[Any]:
    """Note, bars, what was written, and panels, in the order of `_updates`."""
    note = gr.Textbox(label="Note", visible=False, elem_id="note", max_lines=8)
    bars = gr.Label(label="Answers", elem_id="answers")
    written = gr.Textbox(label="Written", visible=answering.takes_choices, elem_id="written", max_lines=10)
    panels = gr.HTML(visible=not answering.blind, elem_id="panels")
    return [note, bars, written, panels]


def _updates(answering: Answering, shown: Shown) -> list[Any]:
    names = f"Written, which names {shown.names}" if shown.written else "Written"
    return [
        gr.update(value=shown.note, visible=bool(shown.note)),
        shown.bars,
        gr.update(value=shown.written, label=names, visible=answering.takes_choices),
        _figures(shown.panels),
    ]


def _figures(panels: Sequence[Panel]) -> str:
    """The panels side by side as HTML that holds them."""
    if not panels:
        return ""
    figures = []
    for image, title in panels:
        image.save(buffer := io.BytesIO(), "PNG")
        source = base64.b64encode(buffer.getvalue()).decode()
        shown = f'<img src="data:image/png;base64,{source}" alt="">'
        figures.append(f"<figure>{shown}<figcaption>{title}</figcaption></figure>")
    return f'<h3>{HEADING}</h3><p>{LEGEND}</p><div class="panels">{"".join(figures)}</div>'


def _examples(examples: list[Example], asked: list[Any], shown: list[Any], answer: Callable[..., Any]) -> None:
    """The examples, each of which is asked when it is clicked on; nothing where there are none."""
    if not examples:
        return
    with tempfile.TemporaryDirectory() as folder:  # Gradio copies them
        rows = write_examples(examples, Path(folder))
        listed = gr.Dataset(
            components=asked[:2], samples=[row[:2] for row in rows], type="index", label="Examples", elem_id="examples"
        )

    def fill(number: int) -> list[Any]:
        picture = listed.samples[number][0]
        return [picture["path"] if picture else None, *rows[number][1:]]

    filled = listed.click(fill, listed, asked[:4], api_visibility="private")
    filled.then(answer, asked, shown, **ASKS)
