"""A checkpoint as a torch module that answers: `dvp.load(path).answer(image, question)`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from dvp.answering import chosen, written
from dvp.answering.asked import Answer, Asked, Picture, all_unknown, read_picture, read_text
from dvp.answering.fetched import local_folder
from dvp.build import build_for_questions
from dvp.config import check, ex
from dvp.data.datamodule import Reader
from dvp.errors import UserError
from dvp.kinds import preprocessing_of
from dvp.module import DVPModule
from dvp.runs.devices import precision_of
from dvp.runs.told import require_base, settings_told

WAYS: dict[str, ModuleType] = {"classified": chosen, "written": written}  # by kind of task
CAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}  # by Lightning's precision; else nothing is cast


class Prepared(NamedTuple):
    """A question that was looked at: what was asked, and its row of a batch."""

    asked: Asked
    row: dict[str, Any]


class Answering(nn.Module):
    """A DVP model that answers questions about pictures, in eval mode and without gradients.

    insert_layer is the K at which it answers; verdict, what is known of it, of a search's checkpoint; blind, whether it
    looks at no picture.
    """

    def __init__(self, module: DVPModule, reader: Reader, config: dict[str, Any]):
        super().__init__()
        self.model = module.model
        self.task, self.reader, self.config = module.task, reader, config
        self.insert_layer, self.searched = module.best_layer, module.bandit is not None
        self.verdict = module.bandit.verdict().words if self.searched else ""
        self.way, self.write = WAYS[module.task.kind], module.answer["test"]
        self.requires_grad_(False).eval()

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.model.head.parameters()).device

    @property
    def blind(self) -> bool:
        """Whether it was trained without pictures, and so takes none."""
        return self.reader.transform is None

    def answer(
        self,
        image: Picture | None | Sequence[Picture | None],
        question: str | Sequence[str],
        choices: Sequence[str] | Sequence[Sequence[str]] = (),
        hint: str | Sequence[str] = "",
        *,
        caption: str | Sequence[str] = "",
        top: int = 5,
        insert_layer: int | None = None,
        attention: bool = False,
        batch_size: int = 32,
    ) -> Answer | list[Answer]:
        """The answer to a question about a picture, or the answers to several, in their order.

        image: a path, the bytes of a file, or an image of PIL's; None where there is none. A list of pictures, of
        questions or of both makes it several; what is no list then holds for all. choices, hint and caption: those of
        ScienceQA. top: how many candidates an answer brings. insert_layer: another K than the checkpoint's. attention:
        bring the weights of the image tokens along. batch_size: questions at a time. Raises UserError for what is no
        picture, an empty question, or choices that are missing.
        """
        several = {
            "image": isinstance(image, list | tuple),
            "question": isinstance(question, list | tuple),
            "choices": bool(choices) and not isinstance(choices, str) and not isinstance(choices[0], str),
            "hint": isinstance(hint, list | tuple),
            "caption": isinstance(caption, list | tuple),
        }
        given = {"image": image, "question": question, "choices": choices, "hint": hint, "caption": caption}
        lengths = {len(given[name]) for name, listed in several.items() if listed}
        if len(lengths) > 1:
            counts = ", ".join(f"{len(given[name])} of {name}" for name, listed in several.items() if listed)
            raise UserError(f"The lists are not equally long ({counts}): give as many of each, or one for all.")
        count = lengths.pop() if lengths else 1
        rows = [
            {name: value[index] if several[name] else value for name, value in given.items()} for index in range(count)
        ]
        answers: list[Answer] = []
        for start in range(0, count, batch_size):
            prepared = [self.prepare(**row) for row in rows[start : start + batch_size]]
            answers += self(prepared, top=top, insert_layer=insert_layer, attention=attention)
        return answers if any(several.values()) else answers[0]

    @property
    def takes_choices(self) -> bool:
        """Whether choices, and a hint, come with the question."""
        return self.way.TAKES_CHOICES

    @property
    def layers(self) -> list[int | list[int]]:
        """The layers at which it can answer: those of a search have a compressor each, else K alone."""
        return list(range(self.model.num_layers)) if self.searched else [self.insert_layer]

    def seen(self, picture: Image.Image) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the part of a picture that the image encoder sees, in its pixels."""
        return preprocessing_of(self.config).seen(*picture.size, 1 if self.blind else self.model.vision.patch_size)

    @property
    def prefix_tokens(self) -> int:
        """How many image tokens stand before those of the patches: class token and registers, where there are any."""
        return 0 if self.blind else self.model.vision.prefix_tokens

    def prepare(
        self,
        image: Picture | None,
        question: str,
        choices: Sequence[str] = (),
        hint: str = "",
        caption: str = "",
        where: str = "",
    ) -> Prepared:
        """One question as a row of a batch; raises UserError as `answer` does. where: names a picture without path."""
        picture, notes = None, ()
        if image is not None and not self.blind:
            picture, notes = read_picture(image, self.config["turn_pictures"], where)
        question, more = read_text(question, "question")
        hint, of_hint = read_text(hint, "hint", needed=False)
        if all_unknown(self.way.tokenizer(self.reader), question):
            more += ("the language model knows no word of the question: they are all one unknown word to it",)
        asked = Asked(question, picture, tuple(choices), hint, caption, (*notes, *more, *of_hint))
        self.way.check(asked, sees=not self.blind)
        row = self.way.row(self.reader, asked)
        if cut := self.way.count_cut(self.reader, row):
            words = f"the text takes {cut[0]:,} tokens, of which the first {cut[1]:,} are read"
            asked = replace(asked, notes=(*asked.notes, words))
        return Prepared(asked, row)

    @torch.no_grad()
    def forward(
        self, prepared: Sequence[Prepared], *, top: int = 5, insert_layer: int | None = None, attention: bool = False
    ) -> list[Answer]:
        """The answers to questions that were prepared, as one batch."""
        layer = self.insert_layer if insert_layer is None else insert_layer
        if insert_layer is not None and not 0 <= layer < self.model.num_layers:
            raise UserError(
                f"insert_layer={layer} is outside this model: give one from 0 to {self.model.num_layers - 1}."
            )
        dtype = CAST.get(precision_of(self.config))
        with (
            torch.autocast(self.device.type, dtype, enabled=dtype is not None),
            self._looked_at(layer, attention) as maps,
        ):
            rows = [one.row for one in prepared]
            answers = self.way.reply(self.model, self.reader, self.write, self._collate, rows, layer, top)
        weights = maps[0].float().mean(1).cpu() if maps else [None] * len(answers)  # (B, heads, N), of all prompts
        return [
            replace(answer, notes=asked.notes, attention=None if asked.picture is None else found)
            for answer, (asked, _), found in zip(answers, prepared, weights, strict=True)
        ]

    def _collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        def moved(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(map(moved, value))
            return value.to(self.device) if isinstance(value, Tensor) else value

        return {key: moved(value) for key, value in self.reader.collate(rows).items()}

    @contextmanager
    def _looked_at(self, layer: int, wanted: bool) -> Iterator[list[Tensor]]:
        """The attention maps (B, P, heads, N) of the (first) compressor for `layer`, as used inside, if wanted."""
        maps: list[Tensor] = []
        if not wanted:
            yield maps
            return
        module = next(iter(self.model.compressors_at(layer).values())).attention
        hook = module.register_forward_hook(lambda _, __, attention: maps.append(attention))
        try:
            yield maps
        finally:
            hook.remove()


def load(
    path: str | Path,
    *,
    tokenizer: str = "",
    clip_model: str = "",
    device: str = "cpu",
    precision: int | str | None = None,
    answer_by: str = "generate",
    max_new_tokens: int = 64,
) -> Answering:
    """The model of a checkpoint folder; all that it needs is told by the checkpoint, no table is opened.

    path: the folder, or the name (user/name) of an export on the Hugging Face hub, which is brought here once.
    tokenizer, clip_model: where the language model and the image encoder lie, if not where they lay in training.
    device: cpu, or cuda for a model that is held there as a test on it would hold it; it can be moved later with `.to`.
    precision: 16, 32, bf16 or auto; None: as it was trained. answer_by, max_new_tokens: the settings, of ScienceQA.
    Raises UserError for a folder that is no checkpoint, base weights that are not there or others, no GPU, and a name
    that the hub does not give.
    """
    on_gpu = torch.device(device).type != "cpu"
    if on_gpu and not torch.cuda.is_available():
        raise UserError(f"device={device} but torch finds no GPU here: take device=cpu.")
    path = local_folder(path)
    if path.is_file():
        raise UserError(
            f"{path} is a file, as the published code's checkpoints are: they do not name their answers; test it with "
            "the tables at hand, or give a checkpoint folder."
        )
    told = settings_told(str(path), on_gpu)
    given = {"tokenizer": str(tokenizer), "clip_model": str(clip_model), "precision": precision}
    settings = ex.settings | told | {key: value for key, value in given.items() if value}
    settings |= {"load_path": str(path), "test_only": True, "num_gpus": int(on_gpu), "per_gpu_batchsize": 1}
    settings |= {"image_tokens": "zero" if settings["image_tokens"] == "zero" else "live"}
    config = check(settings | {"answer_by": answer_by, "max_new_tokens": max_new_tokens})
    require_base(str(path), config)
    with torch.random.fork_rng(devices=[]):  # weights are drawn before they are read
        module, reader = build_for_questions(config)
    return Answering(module, reader, config).to(device)
