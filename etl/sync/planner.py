"""Plans the scan of a cycle from the checkpoint and the clocks; pure.

A *scan* reads the collection in `(updated_at, _id)` order from a moving cursor. The next scan starts at
`min(last position, C - lookback)`, where `C` is MongoDB's clock at the start of the last one, finished or interrupted:
documents committed behind its cursor are dated no earlier than that.
"""

from dataclasses import replace
from typing import Final, Literal, NamedTuple

from etl.model.scan import Checkpoint, Scan, ServerTimes, earliest
from schemas.position import AFTER_DATES, FIRST, LAST, Position, at

ColdStart = Literal["full", "recent", "now"]

STEP_TOLERANCE_MS: Final = 1000
"""Smaller steps of a clock are jitter, which the overlap absorbs."""


class Limits(NamedTuple):
    """The settings for reading one collection; times in milliseconds."""

    lookback: int
    """How far the next cycle reads again: the overlap of late commits, and the deadline of writes."""
    longest_ttl: int
    cold_start: ColdStart


def plan(checkpoint: Checkpoint | None, now: ServerTimes, limits: Limits) -> Scan:
    """The scan of a cycle that starts now."""
    if checkpoint is None:
        return _cold_start(now, limits)
    if (interrupted := checkpoint.scan) is not None:
        cursor = _lower(interrupted.cursor, interrupted.clocks, now, limits.lookback)
        return replace(interrupted, clocks=now, cursor=cursor)
    began = checkpoint.clocks or now
    lower = _lower(checkpoint.position, began, now, limits.lookback)
    return Scan("delta", now, lower, AFTER_DATES)


def plan_catch_up(
    checkpoint: Checkpoint | None, now: ServerTimes, limits: Limits, since: ServerTimes
) -> Scan:
    """The scan of a cycle that also reads everything that changed since a backfill began at `since`.

    Without a checkpoint the backfill has read everything older.
    """
    lower = _lower(None, since, now, limits.lookback)
    if checkpoint is None:
        return Scan("delta", now, lower, AFTER_DATES)
    planned = plan(checkpoint, now, limits)
    return planned.moved(earliest(planned.cursor, lower))


def _cold_start(now: ServerTimes, limits: Limits) -> Scan:
    match limits.cold_start:
        case "full":
            return Scan("cold_start", now, FIRST, LAST)
        case "recent":
            return Scan("cold_start", now, at(now.mongo - limits.longest_ttl), AFTER_DATES)
        case "now":
            # Only the documents that the next scan would read again; they are marked as done.
            return Scan("cold_start", now, at(now.mongo - limits.lookback), AFTER_DATES)


def _lower(position: Position | None, began: ServerTimes, now: ServerTimes, lookback: int) -> Position:
    """`min(position, C - lookback)`; earlier by the step if MongoDB's clock was set back since the last scan.

    Documents may then be dated before `C` by as much as the step. It is measured with the clock of Redis.
    """
    window = at(began.mongo - lookback)
    lower = window if position is None else earliest(position, window)
    step = (now.redis - began.redis) - (now.mongo - began.mongo)
    return lower if step <= STEP_TOLERANCE_MS or lower.ms is None else at(lower.ms - step)
