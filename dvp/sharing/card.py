"""The model card: README.md with front matter for the hub, and what a reader wants to know before trusting it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from dvp.sharing.known import Known
from dvp.tasks import TASKS

ON_THE_HUB = {  # OpenAI's archives there
    "ViT-B/16": "openai/clip-vit-base-patch16",
    "ViT-B/32": "openai/clip-vit-base-patch32",
    "ViT-L/14": "openai/clip-vit-large-patch14",
}
STAMP = (
    "**`as_published`**: this model runs with the published code's arithmetic and protocol, quirks included. Its "
    "numbers compare with the published ones, not with those of other models of this code."
)
METHOD = (
    "A frozen image encoder turns the picture into tokens; a compressor, asked by the text, turns them into one visual "
    "prompt token, which is put in front of the text before layer K of the language model (Dynamic Visual Prompting)."
)
USE = """\
```python
import dvp  # pip install the code of Dynamic Visual Prompting

model = dvp.load("<this folder>"{base})
print(model.answer({asked}).text)
```"""

PEFT = """

The language model alone, with its adapters and norms, by PEFT:
`PeftModel.from_pretrained(base, "<this folder>/adapter")`, `base` being the base's `AutoModel`."""


def write_card(path: Path, known: Known, license: str) -> None:
    """Write the model card of an export."""
    path.write_text(f"---\n{_front_matter(known, license)}---\n\n{_body(known, license)}\n", encoding="utf-8")


def _front_matter(known: Known, license: str) -> str:
    config, task = known.description["config"], known.description["task"]
    bases = [ON_THE_HUB.get(config[key], config[key]) for key in ("tokenizer", "clip_model")]
    results = [
        {
            "task": {"type": "visual-question-answering"},
            "dataset": {"name": task, "type": task, "split": name.split("/")[1]},
            "metrics": [{"type": name.split("/")[2], "name": name, "value": round(value, 2)}],
        }
        for name, value in known.scores.items()
        if not name.endswith("/loss")
    ]
    told: dict[str, Any] = {
        "license": license,
        "library_name": "dvp",
        "pipeline_tag": "visual-question-answering",
        "tags": ["dynamic-visual-prompting", task, *(["as_published"] if known.description["as_published"] else [])],
    }
    if hub := [name for name in bases if not name.startswith("./")]:
        told["base_model"] = hub
    if results:
        told["model-index"] = [{"name": config.get("exp_name", "DVP"), "results": results}]
    return yaml.safe_dump(told, sort_keys=False, allow_unicode=True)


def _body(known: Known, license: str) -> str:
    parts = [
        f"# {known.description['config'].get('exp_name', 'DVP')}",
        METHOD,
        *([STAMP] if known.description["as_published"] else []),
        "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in _facts(known))]),
        "## Scores",
        _scores(known),
        "## Use",
        _use(known),
        "## Base",
        _base(known),
        "## Licence",
        f"`{license}` for what was trained. The licences of the base models and of the data hold, too.",
    ]
    return "\n\n".join(parts)


def _facts(known: Known) -> Iterator[tuple[str, str]]:
    described, config = known.description, known.config
    yield "task", described["task"]
    yield "K", f"{described['insert_layer']}, counted from 0"
    yield "how K was found", _how_found(known)
    yield "language model", f"{described['language_model']}, {_place(described, 'tokenizer')}"
    unseen = " (unused: trained blind)" if described.get("blind") else ""
    yield "image encoder", _place(described, "clip_model") + unseen
    adapted = described.get("use_adapter", config.get("use_adapter"))
    yield "trained", f"{_parts(described, adapted)}, compressor, head"
    yield "trained parameters", f"{known.parameters:,}"
    if TASKS[described["task"]].kind == "classified":
        yield "answers", f"{len(described['answers']):,}, in config.json"
    if rows := ", ".join(f"{name} {count:,}" for name, count in sorted(known.rows.items())):
        yield f"{'questions' if TASKS[described['task']].kind == 'written' else 'pictures'} of each table", rows
    length = "max_epoch" if config.get("max_steps") is None else "max_steps"
    settings = (length, "batch_size", "learning_rate", "seed")
    if told := ", ".join(f"{key}={config[key]}" for key in settings if key in config):
        start = ", from the weights of that search" if known.told and not described["search_stage"] else ""
        yield "training", f"at most {told}{start}"
    yield "as_published", str(described["as_published"])


def _parts(described: dict[str, Any], adapted: bool | str | None) -> str:
    """What was trained of the language model, in words."""
    if kind := described.get("merged"):
        return f"{kind} adapters and norms, which are merged into the language model"
    named = (
        f"{adapted} adapters (targets {described['adapter_targets']}) and norms"
        if "adapter_targets" in described
        else ""
    )
    words = {True: "adapters and norms", "frozen": "nothing of the language model"}
    return named or words.get(adapted, "the whole language model")


def _place(described: dict[str, Any], key: str) -> str:
    """How the card names a part of the base."""
    return f"`{described['config'][key].removeprefix('./')}`"


def _how_found(known: Known) -> str:
    search = known.search
    if search is None:
        return "not by a search that is known here"
    by = f"kab={search['kab']}, {search['updates']:,} updates"
    return f"{'a search' if known.told else 'given; a search of the same settings'} said: {search['verdict']} ({by})"


def _scores(known: Known) -> str:
    if not known.scores:
        return "None are known here."
    rows = [f"| {name} | {value:.2f} |" for name, value in known.scores.items()]
    led = ", at the layer that led then" if known.config.get("search_stage") else ""
    return "\n".join([f"In percent, as the run wrote them{led}.", "", "| metric | |", "|---|---|", *rows])


def _use(known: Known) -> str:
    keys = [key for key in ("tokenizer", "clip_model") if key not in known.description.get("base_included", {})]
    named = {key: known.description["config"][key] for key in keys}
    moved = "".join(f', {key}="<its folder>"' for key, name in named.items() if name.startswith("./"))
    choices = ', ["a cat", "a dog"]' if TASKS[known.description["task"]].kind == "written" else ""
    own = PEFT if "adapter_targets" in known.description else ""
    return USE.format(base=moved, asked=f'"cat.jpg", "What is on the sofa?"{choices}') + own


def _base(known: Known) -> str:
    included = known.description.get("base_included", {})
    where = {key: known.description["config"][key] for key in ("tokenizer", "clip_model") if key not in included}
    if included and not where:
        return f"The frozen base is included, in {' and '.join(f'`{name}/`' for name in included.values())}."
    merged = "The language model is in `language_model/`, for transformers too. " if included else ""
    local = [key for key, name in where.items() if name.startswith("./")]
    names = (f"{_place(known.description, key)} (`{key}=`{', a folder' if key in local else ''})" for key in where)
    return (
        f"{merged}The {'image encoder' if merged else 'base'} is not included: {' and '.join(names)}. "
        + ("`dvp.load` is told where the folders lie. " if local else "")
        + f"Frozen weights other than those it was trained beside are refused (sha256 of a sample: "
        f"`{known.description['frozen'][:16]}`)."
    )
