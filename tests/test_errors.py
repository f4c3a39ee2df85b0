"""What a user is told: every sentence of a UserError says what to do."""

import pytest

from docs.messages import REMEDY, messages

MESSAGES = messages()


@pytest.mark.parametrize("text", [one.text for one in MESSAGES], ids=[f"{one.file}:{one.line}" for one in MESSAGES])
def test_it_says_what_to_do(text: str) -> None:
    assert REMEDY.search(text), text
