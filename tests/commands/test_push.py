"""An export goes to the hub in one commit, and what stops it is said in a sentence."""

import shutil
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
from fake_hub import TOKEN, Hub, serving
from tiny_world import picture

import dvp
from dvp.errors import UserError

BERT = "dvp_adaption_bert_vqa"
NAME = "someone/dvp-vqa"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as server:
        yield server


@pytest.fixture
def online(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub of this process."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.address)
    address = f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)
    for name in ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_XET"):
        monkeypatch.setattr(huggingface_hub.constants, name, True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


def pull(hub: Hub, to: Path) -> Path:
    """What a reader gets of the repository."""
    for name, data in hub.repositories[NAME].items():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        (to / name).write_bytes(data)
    return to


def test_what_was_pushed_answers_as_the_checkpoint_does(
    hub: Hub, online: Hub, checkpoint: Callable[..., Path], command: Callable[..., None], capsys, tmp_path: Path
) -> None:
    last = checkpoint(BERT)
    command("export", "with", load_path=last, push_to=NAME, with_base=True, private=True)
    assert f"It is on the hub: {hub.address}/{NAME}" in capsys.readouterr().out
    assert hub.commits == [NAME] and hub.created[0]["visibility"] == "private"
    expected = dvp.load(last).answer(picture(5), "is there a red circle")
    assert dvp.load(pull(hub, tmp_path / "pulled")).answer(picture(5), "is there a red circle") == expected


def test_it_is_loaded_by_its_name_and_asked_for_anew(
    online: Hub, checkpoint, command, monkeypatch, tmp_path: Path, free_port: int
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "kept"))
    command("export", "with", load_path=checkpoint(BERT), push_to=NAME, with_base=True)
    expected = dvp.load(checkpoint(BERT)).answer(picture(5), "is there a red circle")
    assert dvp.load(NAME).answer(picture(5), "is there a red circle") == expected
    other = checkpoint(BERT, seed=1)
    command("export", "with", load_path=other, push_to=NAME, with_base=True, overwrite=True)
    newer = dvp.load(other).answer(picture(5), "is there a red circle")
    assert dvp.load(NAME).answer(picture(5), "is there a red circle") == newer != expected
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{free_port}")  # nobody answers
    assert dvp.load(NAME).answer(picture(5), "is there a red circle") == newer


NOT_LOADED = {
    "unknown": ("someone/nothing", "does not give it (404): check the name"),
    "another's": ("someone/bert", "is no export of this project"),
    "without a config": ("someone/data", "is no export of this project"),
    "nobody answers": (NAME, "cannot be reached to look for it there"),
    "offline": (NAME, "cannot be reached to look for it there"),
}


@pytest.mark.parametrize("case", NOT_LOADED)
def test_a_name_that_gives_no_model_is_a_sentence(case: str, online: Hub, monkeypatch, tmp_path, free_port) -> None:
    name, said = NOT_LOADED[case]
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "kept"))
    online.repositories["someone/bert"] = {"config.json": b'{"model_type": "bert"}', "large.bin": b"0"}
    online.repositories["someone/data"] = {"README.md": b""}
    if case == "offline":
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    elif case == "nobody answers":
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{free_port}")
    with pytest.raises(UserError) as error:
        dvp.load(name)
    assert said in str(error.value) and name in str(error.value) and "\n" not in str(error.value)
    assert "".join(traceback.format_exception(error.value)).count("Traceback") == 1  # all is said in the sentence
    assert not list(tmp_path.rglob("large.bin"))


def test_a_repository_that_is_there_is_asked_for(online: Hub, checkpoint, command, refused, tmp_path) -> None:
    options = {"load_path": checkpoint(BERT), "push_to": NAME}
    command("export", "with", **options, with_base=True)
    before = dict(online.repositories[NAME])
    assert f"push_to={NAME} is there already: add overwrite=True" in refused("export", "with", **options)
    assert online.repositories[NAME] == before and len(online.commits) == 1
    command("export", "with", **options, overwrite=True, license="mit")
    names = {name for name in online.repositories[NAME] if "/" not in name}
    assert set(online.repositories[NAME]) == names and "README.md" in names  # the base is gone
    assert b"license: mit" in online.repositories[NAME]["README.md"]


def test_what_was_exported_before_is_pushed_as_it_is(online: Hub, checkpoint, command, refused, tmp_path) -> None:
    command("export", "with", load_path=checkpoint(BERT), to=tmp_path / "out")
    assert "is exported already: copy the folder" in refused("export", "with", load_path=tmp_path / "out", to="other")
    (tmp_path / "out" / "README.md").write_text("# Mine")
    command("export", "with", load_path=tmp_path / "out", push_to=NAME)
    assert online.repositories[NAME].pop("README.md") == b"# Mine"
    assert set(online.repositories[NAME]) - {".gitattributes"} == {
        path.name for path in (tmp_path / "out").iterdir() if path.name != "README.md"
    }


def test_without_a_token_it_is_said_how_to_get_one(online: Hub, checkpoint, refused, monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    error = refused("export", "with", load_path=checkpoint(BERT), push_to=NAME)
    assert f"push_to={NAME} needs a token: log in with `hf auth login`" in error
    assert online.repositories == {}


@pytest.mark.parametrize("how", ["offline", "nobody answers", "another's token", "no room"])
def test_what_the_hub_lacks_or_refuses_is_a_sentence(how: str, online: Hub, checkpoint, refused, monkeypatch, free_port, tmp_path) -> None:  # fmt: skip  # noqa: E501
    if how == "offline":
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    elif how == "nobody answers":
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{free_port}")
    elif how == "another's token":
        monkeypatch.setenv("HF_TOKEN", "hf_another")
    else:
        online.failing = 403
    said = {"another's token": "401: the token is not valid"}.get(how, "did not take")
    error = refused("export", "with", load_path=checkpoint(BERT), push_to=NAME, to=tmp_path / "out")
    assert said in error and len(error.strip().splitlines()) == 1, error
    assert online.commits == []
    shutil.rmtree(tmp_path / "out")  # the folder was whole before
