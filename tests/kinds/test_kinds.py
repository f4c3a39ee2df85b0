"""A kind of task: every file offers the names that build.py and runs/ look for."""

import re
from types import ModuleType

import pytest

from dvp import kinds
from dvp.kinds import KINDS
from dvp.tasks import TASKS

NAMES = re.findall(r"^(\w+)  +\S", kinds.__doc__, re.MULTILINE)


def test_the_names_are_read_from_the_docstring() -> None:
    assert {"OFFERED", "prepared", "load_published"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_a_kind_offers_it(kind: ModuleType, name: str) -> None:
    assert callable(getattr(kind, name)) == name.islower()


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_what_others_need_of_a_kind_is_listed(kind: ModuleType) -> None:
    assert set(kind.__all__) == {name for name in NAMES if name.islower()}


def test_every_task_has_a_kind_and_every_kind_a_task() -> None:
    assert {task.kind for task in TASKS.values()} == set(KINDS)
