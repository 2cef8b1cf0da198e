"""Where a cycle reads, given the checkpoint and the clocks."""

from typing import Any

import pytest
from bson.datetime_ms import DatetimeMS

from etl.model.scan import Checkpoint, Scan, ServerTimes, earliest, latest
from etl.sync.planner import Limits, plan, plan_catch_up
from schemas.position import AFTER_DATES, FIRST, LAST, Position, at

HOUR = 3_600_000
LOOKBACK = 120_000
BEGAN = ServerTimes(100 * HOUR, 100 * HOUR)
NOW = ServerTimes(101 * HOUR, 101 * HOUR)
WINDOW = at(BEGAN.mongo - LOOKBACK)


def limits(**changes: Any) -> Limits:
    """A lookback of two minutes, a TTL of three hours, a full cold start, and the given changes."""
    return Limits(LOOKBACK, 3 * HOUR, "full")._replace(**changes)


def dated(ms: int) -> Position:
    """A position at a date."""
    return Position(DatetimeMS(ms), "id")


@pytest.mark.parametrize(
    ("position", "lower"),
    [
        (dated(BEGAN.mongo - 1), WINDOW),
        (dated(BEGAN.mongo - LOOKBACK), WINDOW),
        (dated(BEGAN.mongo - LOOKBACK - 1), dated(BEGAN.mongo - LOOKBACK - 1)),
        (dated(5), dated(5)),
        (None, WINDOW),
    ],
)
def test_delta_starts_at_the_lookback_or_an_earlier_watermark(
    position: Position | None, lower: Position
) -> None:
    """`min(position, C - lookback)`; C is the clock at the start of the previous cycle, not now."""
    assert plan(Checkpoint(position, BEGAN), NOW, limits()) == Scan("delta", NOW, lower, AFTER_DATES)


@pytest.mark.parametrize("position", [dated(BEGAN.mongo), dated(5)])
@pytest.mark.parametrize("lost", [1_001, HOUR])
def test_clock_that_was_set_back_extends_the_lookback(position: Position, lost: int) -> None:
    """By the difference from the clock of Redis: documents may be dated that much before C."""
    now = NOW._replace(mongo=NOW.mongo - lost)
    usual = plan(Checkpoint(position, BEGAN), NOW, limits()).cursor
    assert plan(Checkpoint(position, BEGAN), now, limits()).cursor == at((usual.ms or 0) - lost)


@pytest.mark.parametrize("step", [-1_000, 1, HOUR])
def test_clock_jitter_or_a_step_forward_changes_nothing(step: int) -> None:
    """Two clocks may differ by a second; a step forward does not change C."""
    now = NOW._replace(mongo=NOW.mongo + step)
    assert plan(Checkpoint(None, BEGAN), now, limits()).cursor == WINDOW


@pytest.mark.parametrize(
    ("cold_start", "cursor", "end"),
    [
        ("full", FIRST, LAST),
        ("recent", at(98 * HOUR), AFTER_DATES),
        ("now", at(101 * HOUR - LOOKBACK), AFTER_DATES),
    ],
)
def test_cold_start_begins_where_the_setting_says(cold_start: str, cursor: Position, end: Position) -> None:
    """At the first document, at the longest TTL, or at the lookback."""
    assert plan(None, NOW, limits(cold_start=cold_start)) == Scan("cold_start", NOW, cursor, end)


@pytest.mark.parametrize(
    ("stopped_at", "cursor"), [(dated(5), dated(5)), (LAST, WINDOW), (FIRST, FIRST), (WINDOW, WINDOW)]
)
def test_interrupted_scan_resumes_at_its_cursor(stopped_at: Position, cursor: Position) -> None:
    """In its mode and to its end; from the lookback if the cursor is later than that."""
    interrupted = Scan("cold_start", BEGAN, stopped_at, LAST)
    scan = plan(Checkpoint(dated(7), None, interrupted), NOW, limits(cold_start="now"))
    assert scan == Scan("cold_start", NOW, cursor, LAST)


def test_interrupted_scan_takes_precedence_over_a_finished_one() -> None:
    """The lookback is measured from its own clock."""
    before = ServerTimes(50 * HOUR, 50 * HOUR)
    interrupted = Scan("delta", BEGAN, dated(BEGAN.mongo), AFTER_DATES)
    assert plan(Checkpoint(dated(7), before, interrupted), NOW, limits()).cursor == WINDOW


@pytest.mark.parametrize(
    ("checkpoint", "cursor"),
    [
        (None, at(50 * HOUR - LOOKBACK)),
        (Checkpoint(dated(BEGAN.mongo), BEGAN), at(50 * HOUR - LOOKBACK)),
        (Checkpoint(dated(5), BEGAN), dated(5)),
        (Checkpoint(None, None, Scan("cold_start", BEGAN, FIRST, LAST)), FIRST),
    ],
    ids=["no cycle before", "a cycle", "one that was behind", "a cold start that was interrupted"],
)
def test_catch_up_starts_at_the_beginning_of_the_backfill(
    checkpoint: Checkpoint | None, cursor: Position
) -> None:
    """Or where the next cycle would start, if that is earlier."""
    since = ServerTimes(50 * HOUR, 50 * HOUR)
    scan = plan_catch_up(checkpoint, NOW, limits(), since)
    assert scan.cursor == cursor
    assert scan.mode == ("cold_start" if checkpoint and checkpoint.scan else "delta")


def test_positions_are_compared_as_in_the_index() -> None:
    """By date, then by `_id` across types."""
    number, text = Position(DatetimeMS(5), 9), Position(DatetimeMS(5), "a")
    assert earliest(text, number, dated(6)) == number
    assert latest(None, number, text) == text
    assert latest(None, None) is None
