"""The installed package: it holds what it needs, and a command in another folder is the checkout's."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOT_SOURCES = shutil.ignore_patterns(".*", "__pycache__", "build", "*.egg-info", "datasets", "result", "llama_7b*")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the package in it; its dependencies are those of the environment of this test."""
    folder = tmp_path_factory.mktemp("package") / "environment"
    venv.create(folder)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    sources = shutil.copytree(ROOT, folder.parent / "sources", ignore=NOT_SOURCES)  # a build leaves files beside them
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "--disable-pip-version-check"]
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--no-compile"]
    subprocess.run([*pip, "install", *options, str(sources)], check=True)
    shutil.rmtree(sources)
    return folder


@pytest.fixture
def elsewhere(environment: Path, tmp_path: Path) -> Callable[..., str]:
    """Runs a program of the environment in an empty folder, where no checkout is seen; returns what it prints."""

    def call(program: str, *words: str) -> str:
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        ended = subprocess.run(
            [environment / "bin" / program, *words], cwd=tmp_path, env=variables, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    return call


def test_the_packages_dvp_and_clip_are_installed_and_no_other(environment: Path, elsewhere: Callable[..., str]) -> None:
    (site_packages,) = environment.glob("lib/python*/site-packages")
    installed = {path.name for path in site_packages.iterdir()}
    assert {name for name in installed if not name.endswith((".dist-info", ".pth"))} == {"dvp", "clip"}
    folders = elsewhere("python", "-W", "ignore", "-c", "import clip, dvp.config; print(clip.__path__, dvp.__path__)")
    assert folders.split() == [f"['{site_packages / 'clip'}']", f"['{site_packages / 'dvp'}']"]


def test_the_embedded_models_are_all_installed(environment: Path) -> None:
    (models,) = environment.glob("lib/python*/site-packages/dvp/shapes/models")
    files = {path.relative_to(models): path.read_bytes() for path in models.rglob("*") if path.is_file()}
    own = ROOT / "dvp" / "shapes" / "models"
    assert files == {path.relative_to(own): path.read_bytes() for path in own.rglob("*") if path.is_file()}


def test_a_verb_is_that_of_the_checkout(elsewhere: Callable[..., str], environment: Path) -> None:
    words = ["print_config", "with", "dvp_search_bert_vqa", "shapes"]
    own = subprocess.run([sys.executable, "run.py", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    (site_packages,) = environment.glob("lib/python*/site-packages")
    assert elsewhere("dvp", *words) == own.stdout.replace(str(ROOT / "dvp"), str(site_packages / "dvp"))


def test_a_run_elsewhere_trains_on_the_embedded_models(
    elsewhere: Callable[..., str], environment: Path, data_root: str, tmp_path: Path
) -> None:
    elsewhere("dvp", "with", "dvp_search_bert_vqa", "shapes", f"data_root={data_root}", "max_steps=1", "batch_size=4",
              "per_gpu_batchsize=4", "image_tokens=live")  # fmt: skip
    (search,) = tmp_path.glob("result/*/version_0/search.json")
    config = json.loads(search.read_text(encoding="utf-8"))["config"]
    assert config["tokenizer"].startswith(str(environment)) and config["clip_model"].startswith(str(environment))
