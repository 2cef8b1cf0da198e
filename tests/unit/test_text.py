"""Text for people."""

import pytest

from etl.text import counted


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 keys"), (1, "1 key"), (2, "2 keys"), (1000, "1,000 keys")]
)
def test_a_count_has_its_noun(number: int, text: str) -> None:
    """In the singular for one only."""
    assert counted(number, "key") == text
