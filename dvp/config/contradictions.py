"""What settings must be to each other: a row for each contradiction, with the sentence that says what to do."""

from collections.abc import Callable
from typing import Any

from dvp.families import family_named
from dvp.files import RESUME_WORDS

CONTRADICTIONS: tuple[tuple[Callable[[dict[str, Any]], Any], str], ...] = (
    (
        lambda c: c["precision"] == 16 and not family_named(c["language_model"]).fits_half,
        "precision=16 makes {language_model}'s activations overflow: use precision=bf16 or 32.",
    ),
    (
        lambda c: c["precision"] == 16 and not c["num_gpus"],
        "precision=16 needs a GPU: on the CPU use precision=32 or bf16.",
    ),
    (
        lambda c: not isinstance(c["decay_power"], str) and c["end_lr"] >= c["learning_rate"],
        "learning_rate={learning_rate} cannot decay to end_lr={end_lr}: make it larger, or take decay_power=constant.",
    ),
    (
        lambda c: c["quantize"] and not c["use_adapter"],
        "quantize={quantize} is for a frozen language model, and all of it is trained here: add use_adapter=True or "
        "lora, or leave quantize out.",
    ),
    (
        lambda c: (c["quantize"], c["use_adapter"], c["num_gpus"]) == ("8bit", "dora", 0),
        "quantize=8bit with use_adapter=dora needs a GPU, since PEFT loses the scales on a CPU: take 4bit, or lora.",
    ),
    (
        lambda c: c["use_adapter"] == "prefix",
        "use_adapter=prefix is not offered, its keys and values stand before a whole text: take lora, dora or ia3.",
    ),
    (
        lambda c: c["as_published"] and (c["prompt_tokens"] > 1 or isinstance(c["insert_layer"], list)),
        "as_published=True has one prompt at one layer: leave prompt_tokens at 1 and give one layer, or leave it out.",
    ),
    (
        lambda c: c["strategy"].startswith("deepspeed") and not c["num_gpus"],
        "strategy={strategy} needs a GPU: on the CPU leave strategy out.",
    ),
    (
        lambda c: c["strategy"] == "fsdp" and (not c["use_adapter"] or c["quantize"] or c["compile"]),
        "strategy=fsdp cuts the matrices of a frozen language model into pieces: add use_adapter=True, and leave "
        "quantize and compile out.",
    ),
    (
        lambda c: c["strategy"] == "fsdp" and c["use_adapter"] == "dora",
        "strategy=fsdp is not offered with use_adapter=dora, which needs whole matrices: take lora, or strategy=ddp.",
    ),
    (
        lambda c: c["test_only"] and not c["load_path"],
        "test_only=True needs load_path=<checkpoint>: say which checkpoint to test.",
    ),
    (
        lambda c: c["resume_from"] not in (None, *RESUME_WORDS) and c["load_path"],
        "load_path and resume_from are both set: give the one to start from.",
    ),
    (
        lambda c: (
            c["start_from"] and not c["test_only"] and (c["load_path"] or c["resume_from"] not in (None, *RESUME_WORDS))
        ),
        "start_from={start_from} and a checkpoint are both set: give the one to start from.",
    ),
    (
        lambda c: c["start_from"] and c["search_stage"],
        "start_from={start_from} is for a training at K, and this is a search: leave it out.",
    ),
    (
        lambda c: c["metric"] == "speed" and c["level"] is None,
        "metric=speed needs level=<percent>: say which score counts as reached.",
    ),
)


def contradictions(config: dict[str, Any]) -> list[str]:
    """A sentence for each contradiction among the settings of a filled config."""
    return [sentence.format_map(config) for contradicts, sentence in CONTRADICTIONS if contradicts(config)]
