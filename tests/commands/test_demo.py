"""The page's command: what is refused at once, in a sentence, before torch is imported."""

import importlib.util
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dvp.commands.demo import GRADIO

ROOT = Path(__file__).parents[2]
BERT = "dvp_adaption_bert_vqa"


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradio is there, or as if; nothing here comes as far as using it."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: name == "gradio" or found(name, *rest))


def test_a_port_in_use_is_said(there, checkpoint, refused) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = refused("demo", "with", load_path=checkpoint(BERT), port=port)
    assert f"host=127.0.0.1 port={port} (Address already in use)" in error and f"port={port + 1}" in error


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid"])
def test_an_address_of_another_machine_is_said(host: str, there, checkpoint, refused, free_port) -> None:
    error = refused("demo", "with", load_path=checkpoint(BERT), host=host, port=free_port)
    assert f"host={host}" in error and "an address of this machine" in error


def test_without_gradio_the_command_that_installs_it_is_said(checkpoint, refused, monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    assert f"pip install '{GRADIO}'" in refused("demo", "with", load_path=checkpoint(BERT))
    assert (ROOT / "requirements-page.txt").read_text().split()[0] == GRADIO


def test_no_checkpoint_is_said(refused) -> None:
    assert "demo needs load_path" in refused("demo")
    assert "there is no such checkpoint" in refused("demo", "with", load_path="none.ckpt")


def test_torch_is_not_imported_for_it(checkpoint, tmp_path: Path) -> None:
    shutil.copytree(checkpoint(BERT), tmp_path / "last.ckpt")
    script = (
        f"import sys, importlib.util; sys.path.insert(0, {str(ROOT)!r}); import run\n"
        "importlib.util.find_spec = lambda name, *rest: name\n"
        "try: run.ex.run_commandline(['run.py', 'demo', 'with', 'load_path=last.ckpt', 'host=203.0.113.7'])\n"
        "except SystemExit as ended: sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", script], cwd=tmp_path).returncode == 0
