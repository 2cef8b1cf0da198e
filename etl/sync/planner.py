"""Where a cycle reads: pure decisions over the checkpoint and the clocks, no I/O.

A *scan* is one reading of the collection in `(updated_at, _id)` order, from a cursor that moves.
Whether the one before finished or was cut, the next begins at `min(where it stood, C - lookback)`,
`C` being the server's clock when it began: what has been committed behind it since is dated no
earlier than that.
"""

from dataclasses import replace
from typing import Final, Literal, NamedTuple

from etl.model.scan import Checkpoint, Scan, ServerTimes, earliest
from schemas.position import AFTER_DATES, FIRST, LAST, Position, at

ColdStart = Literal["full", "recent", "now"]

STEP_TOLERANCE_MS: Final = 1000
"""Differences between two clocks up to this are jitter, which the overlap absorbs."""


class Limits(NamedTuple):
    """What the settings say of reading one collection; times in milliseconds."""

    lookback: int
    """How far behind its beginning the next cycle reads again: how late a document may be committed after its own
    date, and how long a write may be under way."""
    longest_ttl: int
    cold_start: ColdStart


def plan(checkpoint: Checkpoint | None, now: ServerTimes, limits: Limits) -> Scan:
    """The scan of the cycle that begins now."""
    if checkpoint is None:
        return _cold_start(now, limits)
    if (cut := checkpoint.scan) is not None:
        return replace(cut, clocks=now, cursor=_lower(cut.cursor, cut.clocks, now, limits.lookback))
    began = checkpoint.clocks or now
    lower = _lower(checkpoint.position, began, now, limits.lookback)
    return Scan("delta", now, lower, AFTER_DATES)


def plan_catch_up(
    checkpoint: Checkpoint | None, now: ServerTimes, limits: Limits, since: ServerTimes
) -> Scan:
    """The scan of a cycle that also reads all that changed since a backfill began at `since`.

    Where there was no cycle before, the backfill has read all that is older.
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
            # Only what the next scan would read again: the cycle marks it as done.
            return Scan("cold_start", now, at(now.mongo - limits.lookback), AFTER_DATES)


def _lower(stood: Position | None, began: ServerTimes, now: ServerTimes, lookback: int) -> Position:
    """`min(stood, C - overlap)`, and earlier still where MongoDB's clock was set back since.

    Documents may then be dated behind `C` by as much as the step. The clock of Redis witnesses it.
    """
    window = at(began.mongo - lookback)
    lower = window if stood is None else earliest(stood, window)
    step = (now.redis - began.redis) - (now.mongo - began.mongo)
    return lower if step <= STEP_TOLERANCE_MS or lower.ms is None else at(lower.ms - step)
