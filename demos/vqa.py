"""`make demo`: the whole method on the embedded world, through the commands that a user types.

    python -m demos.vqa
"""  # fmt: skip

import json
import os
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open

import run
from dvp.config import SHAPES
from dvp.evaluation import vqa
from dvp.shapes.raw import TEST_ANNOTATIONS

RESULT = Path("result/shapes")
RAW = Path(SHAPES["data_root"]) / "raw" / "vqa"
QUESTIONS = RAW / "v2_OpenEnded_mscoco_test2015_questions.json"

SEARCH, ADAPTION = "dvp_search_bert_vqa", "dvp_adaption_bert_vqa"
# name -> settings of the training at K; those that see go on from the search's weights
MODELS = {
    "blind": "insert_layer=auto image_tokens=zero",
    "full": "start_from=search",
    "adapter": "start_from=search use_adapter=True max_epoch=2",
}


class Trained(NamedTuple):
    """What became of one training: the file of its answers to the test questions, trained parameters, seconds."""

    answers: Path
    parameters: int
    seconds: float


def command(words: str) -> float:
    """The seconds that `python run.py <words>` took; it runs in this process, which saves the imports."""
    print(f"\n$ python run.py {words}", flush=True)
    start = time.perf_counter()
    run.ex.run_commandline(["run.py", *shlex.split(words)])
    return time.perf_counter() - start


def search(log_dir: Path, experiment: str, settings: str = "") -> tuple[dict, float]:
    """The search.json of a search under a new `log_dir`, and its seconds."""
    seconds = command(f"with {experiment} shapes log_dir={log_dir} {settings}")
    return json.loads(next(log_dir.rglob("search.json")).read_text(encoding="utf-8")), seconds


def train(
    log_dir: Path, experiment: str, name: str, settings: str, data_root: str | Path = SHAPES["data_root"]
) -> Trained:
    """Train, and let the best checkpoint answer the test questions."""
    place = f"data_root={data_root} log_dir={log_dir}"
    seconds = command(f"with {experiment} shapes {place} exp_name={name} {settings}")
    (best,) = log_dir.glob(f"{name}_seed*/version_0/checkpoints/epoch*.ckpt")
    checkpoint = best.with_name(f"{name}.ckpt")
    checkpoint.symlink_to(best.name)  # by which answers are called; what the training said to type still works
    command(f"with {place} num_gpus=0 num_workers=0 test_only=True load_path={checkpoint}")
    (answers,) = log_dir.glob(f"*_{name}.json")
    with safe_open(checkpoint / "weights.safetensors", "pt") as weights:
        parameters = sum(torch.Size(weights.get_slice(key).get_shape()).numel() for key in weights.keys())  # noqa: SIM118
    return Trained(answers, parameters, seconds)


def accuracy(answers: Path) -> float:
    """VQA accuracy of answers to the test questions, which only this world's own files tell."""
    held_out = json.loads((RAW / TEST_ANNOTATIONS).read_text(encoding="utf-8"))["annotations"]
    questions = json.loads(QUESTIONS.read_text(encoding="utf-8"))["questions"]
    return vqa.score(json.loads(answers.read_text(encoding="utf-8")), held_out, questions)["overall"]


def main() -> None:
    """World, search, three trainings at K, their answers to the test questions, and a table."""
    shutil.rmtree(RESULT, ignore_errors=True)
    command("shapes")
    found, seconds = search(RESULT, SEARCH)
    layer = found["insert_layer"]
    trained = {name: train(RESULT, ADAPTION, name, words) for name, words in MODELS.items()}
    command(f"check_submission with predictions={trained['full'].answers} questions={QUESTIONS}")
    print(f"\nThe search said after {seconds:.0f} s: {found['verdict']}. VQA accuracy on held-out scenes:\n")
    print(f"{'model':10}{'K':>3}{'accuracy':>10}{'trained parameters':>20}{'seconds':>9}   answers")
    for name, (answers, parameters, took) in trained.items():
        print(f"{name:10}{layer:3}{accuracy(answers):10.2f}{parameters:20,}{took:9.0f}   {answers}")
    print(f"\nRuns, checkpoints and logs lie in {RESULT}; the pictures and questions in {SHAPES['data_root']}.")
    checkpoint = next(RESULT.rglob("full.ckpt"))
    python = os.path.relpath(sys.executable)
    print(f"Ask it on a page:\n  {python} -m pip install -r requirements-page.txt")
    print(f"  {python} run.py demo with load_path={checkpoint}")


if __name__ == "__main__":
    main()
