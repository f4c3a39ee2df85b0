"""The page's own functions, without a browser, for every family and ScienceQA; what is reached and kept."""

import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_world import NAMED_FAMILIES, picture

import dvp

pytest.importorskip("gradio", reason="Gradio is not installed: pip install -r requirements-page.txt")

from dvp.page.layout import build_page, serve  # noqa: E402

SCIENCE = {"prompt_format": "QCM-ALE"}


@pytest.fixture
def upload(tmp_path: Path) -> str:
    (tmp_path / "a.png").write_bytes(picture(1))
    return str(tmp_path / "a.png")


def function(page: Any, name: str) -> Any:
    """The first function of a page that has this name."""
    return next(one.fn for one in page.fns.values() if one.name == name)


def shown(page: Any) -> list[str]:
    """The labels of the fields that a user sees."""
    return [block.label for block in page.blocks.values() if getattr(block, "label", "") and block.visible]


@pytest.mark.parametrize("family", NAMED_FAMILIES)
def test_the_page_of_a_family_answers_as_the_model(family: str, checkpoint, upload: str) -> None:
    model = dvp.load(checkpoint(f"dvp_adaption_{family}_vqa"))
    page = build_page(model)
    assert shown(page) == ["Picture", "Question", "Answers", "Examples"]
    note, bars, written, panels = function(page, "answer")(upload, "is there a red circle", None, None, 1)
    assert bars == dict(model.answer(upload, "is there a red circle").candidates)
    assert not note["visible"] and not written["visible"] and panels.count("<figure>") == 5


def test_the_page_of_a_search_has_a_slider_that_asks_anew(checkpoint, upload: str) -> None:
    model = dvp.load(checkpoint("dvp_search_bert_vqa", search_sample="all"))
    page = build_page(model)
    assert "K: the prompt goes in before this layer" in shown(page)
    for layer in model.layers:
        bars = function(page, "again")(upload, "is there a red circle", None, None, layer)[1]
        assert bars == dict(model.answer(upload, "is there a red circle", insert_layer=layer).candidates)
    assert function(page, "again")(upload, "", None, None, 0)[1] is None


def test_questions_are_answered_one_by_one(checkpoint) -> None:
    page = build_page(dvp.load(checkpoint("dvp_search_bert_vqa", search_sample="all")))
    asking = [one for one in page.fns.values() if one.name in ("answer", "again")]
    assert len(asking) == 3  # by the button, by the slider, by an example
    assert {(one.concurrency_id, one.concurrency_limit) for one in asking} == {("model", 1)}


def test_the_page_of_science_qa_takes_choices(science, checkpoint, upload: str) -> None:
    model = dvp.load(checkpoint("dvp_adaption_llama_sqa", **SCIENCE, **science[1]), max_new_tokens=12)
    page = build_page(model)
    assert {"Choices, one a line", "Hint", "Written"} <= set(shown(page))
    answer = model.answer(upload, "Which colour is it ?", ["red", "blue"])
    note, bars, written, _ = function(page, "answer")(upload, "Which colour is it ?", "red\nblue", None, 1)
    assert bars == dict(answer.candidates) and written["value"] == answer.written and written["visible"]
    assert "0 choices" in function(page, "answer")(upload, "Which colour is it ?", None, None, 1)[0]["value"]


def test_the_page_of_a_blind_model_takes_no_picture(checkpoint) -> None:
    page = build_page(dvp.load(checkpoint("dvp_adaption_bert_gqa", image_tokens="zero")))
    assert "Picture" not in shown(page)
    assert function(page, "answer")(None, "is there a red circle", None, None, 1)[1]


# Served


@pytest.fixture
def served(checkpoint, free_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a page, on a machine whose way out is a proxy that is not there."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "example.com")
    page = build_page(dvp.load(checkpoint("dvp_adaption_bert_vqa")))
    yield serve(page, "127.0.0.1", free_port)
    page.close()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have one loopback address")
def test_it_is_served_at_its_address_alone(served: str, free_port: int) -> None:
    socket.create_connection(("127.0.0.1", free_port), timeout=2).close()
    with pytest.raises(ConnectionRefusedError):  # at 0.0.0.0 it would answer here, too
        socket.create_connection(("127.0.0.2", free_port), timeout=2)


def test_nobody_is_told(served: str) -> None:
    from gradio.analytics import analytics_enabled

    assert not analytics_enabled()


def test_a_file_that_nobody_uploaded_is_not_given_out(served: str, tmp_path: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with pytest.raises(urllib.error.HTTPError, match="403"):
        opener.open(f"{served}gradio_api/file=/etc/passwd")


def post(address: str, content: bytes, kind: str) -> bytes:
    """What an address answers to this content."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(address, content, {"Content-Type": kind})) as answered:
        return answered.read()


def give(served: str) -> str:
    """Where a page keeps a picture that it was given."""
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    form = head + picture(1) + b"\r\n--b--\r\n"
    (path,) = json.loads(post(f"{served}gradio_api/upload", form, "multipart/form-data; boundary=b"))
    return path


def test_what_is_uploaded_lies_in_a_folder_of_this_process_alone(served: str) -> None:
    folder = Path(give(served)).parents[1]
    assert folder.name.startswith("dvp-page-") and folder.stat().st_mode & 0o777 == 0o700
    code = "import dvp.page.layout as page; print(page._own_folder().name)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert Path(other).parent == folder.parent and not Path(other).exists() and folder.exists()


def test_a_path_that_nobody_uploaded_is_not_asked_about(served: str, upload: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def succeeds(path: str, session: str) -> bool:
        data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, "is there a red circle", None, None, 1]
        content = {"data": data, "fn_index": 0, "session_hash": session}
        post(f"{served}gradio_api/queue/join", json.dumps(content).encode(), "application/json")
        with opener.open(f"{served}gradio_api/queue/data?session_hash={session}") as events:
            told = next(line for line in events if b"process_completed" in line)
        return json.loads(told.removeprefix(b"data:"))["success"]

    assert succeeds(give(served), "a")
    assert not succeeds(upload, "b")
