"""What a training's report is made of: its answers with pictures and heat maps, metrics, versions, its command."""

import io
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvp.commands.idle import SWEEP
from dvp.commands.next import ask, checkpoint_of, command
from dvp.config import NAMED, check, settle
from dvp.errors import UserError

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from dvp.report.training import Example, Scored
    from dvp.runs.answered import Answered, Validation

EXAMPLES = 10  # right ones, and as many wrong ones
JPEG_QUALITY = 85
SMALL = 112  # pixels of a panel where every head has one
PACKAGES = ("torch", "transformers", "pytorch-lightning", "pyarrow", "pillow")
# What says where a run goes on or starts, of which the report names what was found.
FOUND = ("resume_from", "resume_asked", "own_folder", "start_from", "insert_layer", "load_path")
WORST = 3  # groups that are named on the terminal


def curve_lines(trainer: "pl.Trainer") -> str:
    """The curves of a training in letters; empty where there are none, as of a search, whose own stand elsewhere."""
    from dvp.report.training import training_lines

    return "" if trainer.lightning_module.bandit else training_lines(_charts(trainer, None))


def report_lines(config: dict[str, Any], trainer: "pl.Trainer", named: Sequence[str], typed: dict[str, Any]) -> str:
    """Write the report of a training with this checked config, of named configs and typed settings; its gist in words.

    Says so where there is no room for it, or one of its pictures has gone: what was trained is there.
    """
    from dvp.report.training import by_group, report_training

    folder = Path(trainer.default_root_dir)
    try:
        training = _collected(config, trainer, named, typed)
        report_training(folder, training, trainer.loggers, trainer.global_step)
    except UserError as error:
        return f"There is no report: {error}"
    groups = [group for group in by_group(training.scored) if "others" not in group.name]
    worst = sorted(groups, key=lambda group: group.score)[:WORST] if len(groups) > 1 else []
    listed = ", ".join(f"{group.name} {group.score:.1f} % of {group.count:,}" for group in worst)
    gist = f"Hardest by {training.groups}: {listed}\n" if listed else ""
    return f"{gist}Report: {folder / 'report.html'}"


def _collected(config: dict[str, Any], trainer: "pl.Trainer", named: Sequence[str], typed: dict[str, Any]) -> Any:
    from dvp.report.training import Training
    from dvp.runs.answered import kept_answers
    from dvp.runs.words import run_facts, title

    module, data = trainer.lightning_module, trainer.datamodule
    best = kept_answers(trainer).best
    verdict = "It ended before its first validation."
    if best:
        verdict = f"{module.monitor} {best.score:.2f} % at K = {module.insert_layer}, after {best.update:,} updates"
    return Training(
        title=f"{config['exp_name']}, trained at K = {module.insert_layer}",
        verdict=verdict,
        ask=ask(config, checkpoint_of(trainer)),
        command=repeated(config, trainer, named, typed),
        facts={"run": title(config, module)}
        | run_facts(config, data, module, trainer)
        | {"seed": str(config["seed"]), "checkpoint": checkpoint_of(trainer)},
        about=about(config, trainer),
        charts=_charts(trainer, best and best.update),
        groups=data.reader.groups,
        answered=_answered(trainer, best) if best else "",
        scored=_scored(data, best) if best else [],
        examples=list(_examples(config, data, best, module.model.vision)) if best else [],
    )


def _charts(trainer: "pl.Trainer", best: int | None) -> dict[str, Any]:
    """Those of the run's metrics.csv; best: the update of the best validation."""
    from dvp.report.training import read_metrics, training_charts

    metrics = Path(trainer.default_root_dir) / "metrics.csv"
    columns = read_metrics(metrics) if metrics.is_file() else {}
    return training_charts(columns, trainer.datamodule.task.metric, best)


def repeated(config: dict[str, Any], trainer: "pl.Trainer", named: Sequence[str], typed: dict[str, Any]) -> str:
    """The command of this training or search from its start, with the K and the weights that it was found to take.

    What one command of several, as a sweep is, sets of its own is spelled out, and what only such a one takes left out.
    """
    stages = ["dvp_search_", "dvp_adaption_"]
    own_stage, other = stages if config["search_stage"] else stages[::-1]
    words = [word.replace(other, own_stage) if word in NAMED else word for word in named]
    left_out = (*FOUND, *SWEEP)
    kept = {key: value for key, value in typed.items() if key not in left_out}
    then = trainer.lightning_module.config or {}
    if not config["search_stage"]:
        kept["insert_layer"] = trainer.lightning_module.insert_layer
    if then.get("load_path"):
        kept["load_path"] = then["load_path"]
    plain = check(settle(words, kept))
    own = {key: config[key] for key in plain if key not in left_out and config[key] != plain[key]}
    return command(words, kept | own)


def versions() -> dict[str, str]:
    """Those of Python and of the packages that decide a run's numbers, by name."""
    return {"Python": sys.version.split()[0]} | {name: version(name) for name in PACKAGES}


def about(config: dict[str, Any], trainer: "pl.Trainer") -> dict[str, str]:
    """When a training or search with this checked config began, how long it took, with which versions, on what."""
    from dvp.runs.progress import clock, duration_of
    from dvp.search import tables_of

    data, duration = trainer.datamodule, duration_of(trainer)
    about = {"began": duration.began, "took": clock(duration.seconds)}
    about |= versions()
    about["on"] = str(trainer.strategy.root_device)
    if config["resume_from"]:
        about["gone on from"] = config["resume_from"]
    if config["as_published"]:
        about["arithmetic"] = "as published"
    sizes, read = tables_of(data.data_root, data.task.files), {table.path.name for table in data.tables.values()}
    for name, size in ((name, size) for name, size in sizes.items() if name in read):
        about[name] = f"{size[0]:,} bytes, {size[1]}" if isinstance(size, list) else f"{size:,} bytes"
    return about


def _answered(trainer: "pl.Trainer", best: "Validation") -> str:
    data, module = trainer.datamodule, trainer.lightning_module
    count = len(data.questions(module.pick, "validate"))
    some = f"the first {len(best.rows):,} of {count:,}" if len(best.rows) < count else f"all {count:,}"
    blind = "" if data.reader.transform else ", without their pictures (image_tokens=zero)"
    return f"At that validation, {some} questions of {' and '.join(module.pick)}{blind}."


def _told(data: Any, row: "Answered") -> Any:
    return data.reader.told(data.questions((row.split,), "validate"), row.item)


def _scored(data: Any, best: "Validation") -> "list[Scored]":
    from dvp.report.training import Scored

    told = [_told(data, row) for row in best.rows]
    return [Scored(one.group, one.right, row.score) for one, row in zip(told, best.rows, strict=True)]


def _chosen(data: Any, best: "Validation") -> "list[Answered]":
    """Right and wrong answers among those of which it is known what was looked at, first one of each picture."""
    from dvp.report.training import RIGHT

    rows = [row for row in best.rows if (row.split, row.item) in best.looked] or best.rows[: EXAMPLES**2]
    seen: dict[Any, int] = {}
    again = []  # how many of a picture's questions come before
    for row in rows:
        picture = _told(data, row).picture
        place = picture and (str(picture[0].path), picture[1])
        again.append(seen.get(place, 0) if picture else 0)
        seen[place] = seen.get(place, 0) + 1
    order = [row for _, row in sorted(zip(again, rows, strict=True), key=lambda pair: pair[0])]
    right = [row for row in order if row.score >= RIGHT][:EXAMPLES]
    return right + [row for row in order if row.score < RIGHT][:EXAMPLES]


def _examples(config: dict[str, Any], data: Any, best: "Validation", vision: Any) -> "Iterator[Example]":
    from dvp.report.training import Example

    for row in _chosen(data, best):
        told = _told(data, row)
        weights = best.looked.get((row.split, row.item))
        pictures = _pictures(config, data, told.picture, weights, vision) if told.picture else ()
        yield Example(told.question, row.text, told.right, row.score, pictures)


def _pictures(
    config: dict[str, Any], data: Any, place: tuple[Any, int], weights: Any, vision: Any
) -> tuple[bytes, ...]:
    """JPEG: the picture, and where it was seen also what its image tokens weigh, on average and by heads."""
    from dvp.answering.heatmap import PANEL, draw_heatmap, draw_panels
    from dvp.data.arrow import picture_bytes, place_of
    from dvp.images import open_image, upright
    from dvp.kinds import preprocessing_of

    table, row = place
    picture = open_image(picture_bytes(table, row), place_of(table, row))
    picture = upright(picture) if config["turn_pictures"] else picture
    if data.reader.transform is None or weights is None:
        picture.thumbnail((PANEL, PANEL))
        return (_jpeg(picture),)
    seen, prefix = preprocessing_of(config).seen(*picture.size, vision.patch_size), vision.prefix_tokens
    shown, mean, *_ = draw_panels(picture, weights, seen, prefix)
    return _jpeg(shown.image), _jpeg(mean.image), _jpeg(draw_heatmap(picture, weights, seen, prefix, SMALL))


def _jpeg(image: Any) -> bytes:
    image.save(buffer := io.BytesIO(), "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
