import pytest

from etl.cli.history import sparkline


@pytest.mark.parametrize(
    ("numbers", "drawn"),
    [
        ([], ""),
        ([0, 0], "▁▁"),
        ([5], "█"),
        ([0, 1, 2, 3, 4, 5, 6, 7, 8], "▁▂▃▄▅▆▇██"),
        ([0, 1, 1_000_000], "▁▁█"),
    ],
)
def test_each_number_is_a_block_as_high_as_its_share_of_the_greatest(numbers: list[int], drawn: str) -> None:
    """The greatest is a full block, none the lowest."""
    assert sparkline(numbers) == drawn
