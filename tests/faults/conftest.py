"""What the tests of faults share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for a module's files."""
    return tmp_path_factory.mktemp("hostile")
