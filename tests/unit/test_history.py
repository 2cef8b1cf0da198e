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
def test_sparkline_scales_blocks_to_the_greatest_number(numbers: list[int], drawn: str) -> None:
    """The greatest number is a full block, zero the lowest."""
    assert sparkline(numbers) == drawn
