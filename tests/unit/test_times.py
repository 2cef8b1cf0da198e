import pytest

from etl.model.times import iso_utc


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_736_937_000_250, "2025-01-15T10:30:00.250Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        (253_402_300_800_000, "253402300800000"),
        (-62_135_596_800_000, "0001-01-01T00:00:00Z"),
        (-62_135_596_800_001, "-62135596800001"),
        (2**63 - 1, "9223372036854775807"),
        (-(2**63), "-9223372036854775808"),
    ],
)
def test_iso_utc_gives_iso_text_or_milliseconds(ms: int, text: str) -> None:
    """Beyond the years 1 to 9999 the milliseconds."""
    assert iso_utc(ms) == text
