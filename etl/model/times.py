"""Times as text."""

from datetime import UTC, datetime, timedelta

from schemas.values import date_text

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def iso_utc(ms: int) -> str:
    """Milliseconds since the epoch as ISO 8601 in UTC; as milliseconds beyond the years 1 to 9999."""
    try:
        return date_text(_EPOCH + timedelta(milliseconds=ms))
    except OverflowError:
        return str(ms)
