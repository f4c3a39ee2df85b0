"""Which answer is meant by each label of a published checkpoint: it numbers them, but does not name them."""

from pathlib import Path

from dvp.data.arrow import labelled_answers, read_list
from dvp.errors import UserError
from dvp.evaluation.answers import normalise_answer
from dvp.published.checkpoint import PublishedCheckpoint
from dvp.tasks import Task


def published_answers(checkpoint: PublishedCheckpoint, task_name: str, task: Task, data_root: str) -> list[str] | None:
    """The answers by label, as many as the checkpoint tells apart; None where the task fixes them or it has no head.

    The names come from the list beside the tables, which must agree with their labels, or else from the labels alone;
    a label that no row carries stays empty. Raises UserError where tables or list cannot be the checkpoint's.
    """
    count = checkpoint.num_answers(task_name)
    if task.answers or count is None:
        return None
    found, path = labelled_answers(data_root, task), Path(data_root) / f"{task.files}_answers.json"
    wanted = f"{checkpoint.path} tells {count} answers apart"
    remedy = "take the Arrow files that it was trained on, or convert the whole data set."
    if found and max(found) >= count:
        raise UserError(f"{wanted}, but the tables in {data_root} have the label {max(found)}: {remedy}")
    if not path.is_file():
        names = [found.get(label, "") for label in range(count)]
        print(f"load_path: {wanted} without naming them: the labels in {data_root} are taken for its own.")
        if lacking := count - len(found):
            print(
                f"load_path: {lacking} of them have no name there and are answered with an empty text: to name them, "
                f"put the list of all {count}, in the order of the labels, there as {path.name}."
            )
        return names
    names = read_list(path)
    if len(names) != count:
        raise UserError(f"{wanted}, but {path} lists {len(names)}: {remedy}")
    for label, answer in sorted(found.items()):
        if normalise_answer(names[label]) != normalise_answer(answer):
            raise UserError(
                f"{path} calls label {label} {names[label]!r}, but the tables beside it {answer!r}: put the list there "
                "that the tables were made with."
            )
    print(f"load_path: {wanted} without naming them: the order of {path} is taken for its own.")
    return names
