"""The tasks: targets, losses and scores, against plain arithmetic."""

import math

import pytest
import torch

from dvp.tasks import TASKS, Task

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, -2.0], [0.3, 0.2, 0.1]])
LABELS = [[0, 2], [2], []]
SCORES = [[0.6, 1.0], [0.3], []]


def test_vqa_is_scored_softly() -> None:
    task = TASKS["vqa"]
    targets = task.targets(LABELS, SCORES, 3)
    torch.testing.assert_close(targets, torch.tensor([[0.6, 0.0, 1.0], [0.0, 0.0, 0.3], [0.0, 0.0, 0.0]]))
    torch.testing.assert_close(task.score(LOGITS, targets), torch.tensor([0.6, 0.0, 0.0]))
    one = lambda x, y: max(x, 0) - x * y + math.log1p(math.exp(-abs(x)))  # noqa: E731  cross-entropy of one answer
    pairs = zip(LOGITS.flatten().tolist(), targets.flatten().tolist(), strict=True)
    assert task.loss(LOGITS, targets).item() == pytest.approx(sum(one(x, y) for x, y in pairs) / len(LOGITS), rel=1e-5)


@pytest.mark.parametrize("name", ["gqa", "snli_ve"])
def test_classes_are_right_or_wrong(name: str) -> None:
    task = TASKS[name]
    targets = task.targets(LABELS, SCORES, 3)
    assert targets.tolist() == [2, 2, -100]
    assert task.score(LOGITS, torch.tensor([0, 2, -100])).tolist() == [1.0, 0.0, 0.0]
    expected = -torch.log_softmax(LOGITS[:2], 1)[:, 2].mean()  # a row without a known answer teaches nothing
    torch.testing.assert_close(task.loss(LOGITS, targets), expected)


def test_own_data_are_learnt_by_shares_and_scored_by_scores() -> None:
    task = TASKS["custom"]
    targets = task.targets(LABELS, SCORES, 3)
    torch.testing.assert_close(task.score(LOGITS, targets), torch.tensor([0.6, 0.0, 0.0]))
    chances = torch.log_softmax(LOGITS, 1)
    first = 0.6 / 1.6 * chances[0, 0] + 1 / 1.6 * chances[0, 2]
    torch.testing.assert_close(task.loss(LOGITS, targets), -(first + chances[1, 2]) / 2)  # the third has no answer
    one = task.targets([[2], [0], [1]], [[1.0]] * 3, 3)
    torch.testing.assert_close(task.loss(LOGITS, one), TASKS["gqa"].loss(LOGITS, torch.tensor([2, 0, 1])))


@pytest.mark.parametrize("name", ["vqa", "gqa", "snli_ve"])
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_targets_have_a_row_per_question(name: str, rows: int) -> None:
    targets = TASKS[name].targets([[1]] * rows, [[1.0]] * rows, 4)
    assert len(targets) == rows


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_no_split_is_both_trained_on_and_tested(task: Task) -> None:
    assert not set(task.train) & set(task.validate + task.test)
    assert task.pick in task.validate
    assert set(task.published_pick) <= set(task.validate)
    assert task.pick not in ("test", "test-dev")
