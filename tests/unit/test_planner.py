"""Where a cycle reads, from the checkpoint and the clocks alone."""

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
    """Two minutes to look back, three hours of TTL, a full cold start, but for the changes."""
    return Limits(LOOKBACK, 3 * HOUR, "full")._replace(**changes)


def standing(ms: int) -> Position:
    """A watermark."""
    return Position(DatetimeMS(ms), "id")


@pytest.mark.parametrize(
    ("position", "lower"),
    [
        (standing(BEGAN.mongo - 1), WINDOW),
        (standing(BEGAN.mongo - LOOKBACK), WINDOW),
        (standing(BEGAN.mongo - LOOKBACK - 1), standing(BEGAN.mongo - LOOKBACK - 1)),
        (standing(5), standing(5)),
        (None, WINDOW),
    ],
)
def test_a_delta_reads_from_the_overlap_or_where_it_stood(position: Position | None, lower: Position) -> None:
    """`min(position, C - overlap)`, C being the clock when the previous cycle began, not now."""
    assert plan(Checkpoint(position, BEGAN), NOW, limits()) == Scan("delta", NOW, lower, AFTER_DATES)


@pytest.mark.parametrize("position", [standing(BEGAN.mongo), standing(5)])
@pytest.mark.parametrize("lost", [1_001, HOUR])
def test_a_clock_that_was_set_back_is_followed(position: Position, lost: int) -> None:
    """Documents may be dated as much before C: the clock of Redis shows by how much."""
    now = NOW._replace(mongo=NOW.mongo - lost)
    usual = plan(Checkpoint(position, BEGAN), NOW, limits()).cursor
    assert plan(Checkpoint(position, BEGAN), now, limits()).cursor == at((usual.ms or 0) - lost)


@pytest.mark.parametrize("step", [-1_000, 1, HOUR])
def test_a_clock_that_jitters_or_was_set_forward_changes_nothing(step: int) -> None:
    """A second is what two clocks differ by; after a step forward C still is what it was."""
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
def test_a_cold_start_reads_what_the_setting_says(cold_start: str, cursor: Position, end: Position) -> None:
    """All that there is, what the longest TTL still holds, or what the first delta would read again."""
    assert plan(None, NOW, limits(cold_start=cold_start)) == Scan("cold_start", NOW, cursor, end)


@pytest.mark.parametrize(
    ("stood", "cursor"), [(standing(5), standing(5)), (LAST, WINDOW), (FIRST, FIRST), (WINDOW, WINDOW)]
)
def test_an_interrupted_scan_resumes(stood: Position, cursor: Position) -> None:
    """In its mode and to its end, from where it stood; from the overlap where it stood later than that."""
    cut = Scan("cold_start", BEGAN, stood, LAST)
    scan = plan(Checkpoint(standing(7), None, cut), NOW, limits(cold_start="now"))
    assert scan == Scan("cold_start", NOW, cursor, LAST)


def test_an_interrupted_scan_takes_precedence_over_a_finished_one() -> None:
    """Its own clock says what may have been committed behind it."""
    before = ServerTimes(50 * HOUR, 50 * HOUR)
    cut = Scan("delta", BEGAN, standing(BEGAN.mongo), AFTER_DATES)
    assert plan(Checkpoint(standing(7), before, cut), NOW, limits()).cursor == WINDOW


@pytest.mark.parametrize(
    ("checkpoint", "cursor"),
    [
        (None, at(50 * HOUR - LOOKBACK)),
        (Checkpoint(standing(BEGAN.mongo), BEGAN), at(50 * HOUR - LOOKBACK)),
        (Checkpoint(standing(5), BEGAN), standing(5)),
        (Checkpoint(None, None, Scan("cold_start", BEGAN, FIRST, LAST)), FIRST),
    ],
    ids=["no cycle before", "a cycle", "one that was behind", "a cold start that was cut"],
)
def test_a_catch_up_reads_all_that_changed_since_a_backfill_began(
    checkpoint: Checkpoint | None, cursor: Position
) -> None:
    """And what the next cycle would have read anyway."""
    since = ServerTimes(50 * HOUR, 50 * HOUR)
    scan = plan_catch_up(checkpoint, NOW, limits(), since)
    assert scan.cursor == cursor
    assert scan.mode == ("cold_start" if checkpoint and checkpoint.scan else "delta")


def test_positions_are_compared_as_the_index_has_them() -> None:
    """By date, then by `_id` across types; none is the latest of nothing."""
    number, text = Position(DatetimeMS(5), 9), Position(DatetimeMS(5), "a")
    assert earliest(text, number, standing(6)) == number
    assert latest(None, number, text) == text
    assert latest(None, None) is None
