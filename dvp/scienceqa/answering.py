"""How ScienceQA is answered: by the likeliest letter or by what is written; and the official file of results."""

import random
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from dvp.backbones.tokenizer import Tokenizer
from dvp.counting import number_of
from dvp.evaluation.inputs import check_ids
from dvp.evaluation.scienceqa import score, table
from dvp.evaluation.submission import Submission
from dvp.model import DVP
from dvp.scienceqa.data import problems_by_id
from dvp.scienceqa.generate import generate
from dvp.scienceqa.text import ANSWER_STEM, LETTERS, read_answer
from dvp.tasks import Answers, likeliest_choice


def by_likelihood(model: DVP, batch: dict[str, Any], layer: int) -> Answers:
    """The choices whose letters are likeliest to come next."""
    chosen = likeliest_choice(model(batch, layer), batch)
    return Answers(_right(chosen, batch), [f"{ANSWER_STEM} {LETTERS[choice]}." for choice in chosen.tolist()])


def by_text(
    tokens: Tokenizer, max_length: int, max_new_tokens: int, as_published: bool
) -> Callable[[DVP, dict[str, Any], int], Answers]:
    """What answers with the text that the model writes; a text that names no choice is wrong."""

    def answer(model: DVP, batch: dict[str, Any], layer: int) -> Answers:
        written = generate(model, batch, layer, tokens.eos_token_id, max_length, max_new_tokens)
        texts = [tokens.decode(ids) for ids in written]
        counts = batch["num_choices"].tolist()
        choices = [read_answer(text, count, as_published) for text, count in zip(texts, counts, strict=True)]
        chosen = batch["answer"].new_tensor([-1 if choice is None else choice for choice in choices])
        return Answers(_right(chosen, batch), texts)

    return answer


def results(answered: Sequence[tuple[str, str]], data: Any, as_published: bool, seed: int) -> Submission:
    """The official results file of the texts that answer the test problems, with their scores.

    Raises UserError unless every problem is answered exactly once.
    """
    problems = {pid: one for split in data.test for pid, one in problems_by_id(data.tables[split]).items()}
    check_ids((pid for pid, _ in answered), problems, ("the answers", "the test problems"))
    outputs = dict(answered)
    read = {pid: read_answer(outputs[pid], len(problem["choices"]), as_published) for pid, problem in problems.items()}

    def drawn(pid: str) -> int:
        # Published: an answer that cannot be read is drawn at random. Right: it is wrong.
        return random.Random(f"{seed} {pid}").randrange(len(problems[pid]["choices"])) if as_published else -1

    chosen = {pid: drawn(pid) if choice is None else choice for pid, choice in read.items()}
    right = sum(chosen[pid] == problem["answer"] for pid, problem in problems.items())
    content = {"acc": 100 * right / len(chosen), "correct": right, "count": len(chosen), "results": chosen}
    scores, unparsed = score(chosen, problems), list(read.values()).count(None)
    fate = "drawn at random" if as_published else "scored wrong"
    words = f"{table(scores)}\n{unparsed} could not be read and are {fate}.\n{number_of(len(chosen), 'answer')} written"
    content["outputs"] = {pid: outputs[pid] for pid in problems}
    return Submission(content, {"scores": scores, "unparsed": unparsed}, scores, words)


def _right(chosen: Tensor, batch: dict[str, Any]) -> Tensor:
    return (chosen == batch["answer"]).float()
