"""Where a cycle reads: pure decisions over the checkpoint and the clocks, no I/O.

A *scan* is one reading of the collection in `(updated_at, _id)` order, from a cursor that moves.
Whether the one before finished or was cut, the next begins at `min(where it stood, C - overlap)`,
`C` being the server's clock when it began: what has been committed behind it since is dated no
earlier than that.
"""

from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

from etl.errors import Misconfigured
from schemas.position import AFTER_DATES, FIRST, LAST, Position, at

ColdStart = Literal["full", "recent", "now"]
ScanMode = Literal["delta", "cold_start", "backfill"]

STEP_TOLERANCE_MS: Final = 1000
"""Differences between two clocks up to this are jitter, which the overlap absorbs."""


class Clocks(NamedTuple):
    """The clocks of both servers at one moment, in milliseconds since the epoch."""

    mongo: int
    redis: int


@dataclass(frozen=True, slots=True)
class Scan:
    """One reading, begun at `clocks`: everything after `cursor` and before `end`."""

    mode: ScanMode
    clocks: Clocks
    cursor: Position
    end: Position
    begin: Position | None = None
    """Where it was first to begin; of a backfill only, which may be asked for with other bounds."""
    done: int = 0
    """How many documents it has passed, however often it was cut; of a backfill only."""

    def moved(self, cursor: Position, documents: int = 0) -> "Scan":
        """The same scan, further on by so many documents."""
        return replace(self, cursor=cursor, done=self.done + documents)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What earlier cycles left: the watermark, when the last finished one began, a scan cut short.

    `clocks` is None until a first cycle has finished; there is a scan then.
    """

    position: Position | None
    clocks: Clocks | None
    scan: Scan | None = None


class Limits(NamedTuple):
    """What the settings say of reading one collection; times in milliseconds."""

    overlap: int
    longest_ttl: int
    cold_start: ColdStart


class Bounds(NamedTuple):
    """The part of a collection that is backfilled, in milliseconds since the epoch; None where it is open."""

    since: int | None = None
    until: int | None = None
    """Before this."""


class Backfilled(NamedTuple):
    """What a backfill has read: both clocks when it began, and the newest position not in the future."""

    began: Clocks
    position: Position | None


def earliest(*positions: Position) -> Position:
    """The first of them in index order."""
    return min(positions, key=Position.order)


def latest(*positions: Position | None) -> Position | None:
    """The last of them in index order; None where there is none."""
    return max((p for p in positions if p is not None), key=Position.order, default=None)


def plan(checkpoint: Checkpoint | None, now: Clocks, limits: Limits) -> Scan:
    """The scan of the cycle that begins now."""
    if checkpoint is None:
        return _cold_start(now, limits)
    if (cut := checkpoint.scan) is not None:
        return replace(cut, clocks=now, cursor=_lower(cut.cursor, cut.clocks, now, limits.overlap))
    began = checkpoint.clocks or now
    lower = _lower(checkpoint.position, began, now, limits.overlap)
    return Scan("delta", now, lower, AFTER_DATES)


def caught_up(checkpoint: Checkpoint | None, now: Clocks, limits: Limits, since: Clocks) -> Scan:
    """The scan of a cycle that also reads all that changed since a backfill began at `since`.

    Where there was no cycle before, the backfill has read all that is older.
    """
    lower = _lower(None, since, now, limits.overlap)
    if checkpoint is None:
        return Scan("delta", now, lower, AFTER_DATES)
    planned = plan(checkpoint, now, limits)
    return planned.moved(earliest(planned.cursor, lower))


def backfill(checkpoint: Checkpoint | None, now: Clocks, bounds: Bounds) -> Scan:
    """The scan of a backfill: where the one before was cut, or from the very beginning.

    It keeps the clocks of its beginning, for the cycle that catches up with what changed since.

    Raises:
        Misconfigured: the one before was cut, and had other bounds.
    """
    begin = FIRST if bounds.since is None else at(bounds.since)
    end = LAST if bounds.until is None else at(bounds.until)
    cut = checkpoint.scan if checkpoint else None
    if cut is None:
        return Scan("backfill", now, begin, end, begin)
    if (cut.begin, cut.end) != (begin, end):
        raise Misconfigured("the backfill that was cut short had other bounds: give those, or --restart")
    return cut


def remembered_since(checkpoint: Checkpoint, scan: Scan, overlap: int) -> int:
    """From which millisecond on versions may be remembered as handled, by this scan or those before."""
    before = (checkpoint.clocks, checkpoint.scan and checkpoint.scan.clocks)
    return min(clocks.mongo for clocks in (scan.clocks, *before) if clocks) - overlap


def _cold_start(now: Clocks, limits: Limits) -> Scan:
    match limits.cold_start:
        case "full":
            return Scan("cold_start", now, FIRST, LAST)
        case "recent":
            return Scan("cold_start", now, at(now.mongo - limits.longest_ttl), AFTER_DATES)
        case "now":
            # Only what the next scan would read again: the heart marks it as seen.
            return Scan("cold_start", now, at(now.mongo - limits.overlap), AFTER_DATES)


def _lower(stood: Position | None, began: Clocks, now: Clocks, overlap: int) -> Position:
    """`min(stood, C - overlap)`, and earlier still where MongoDB's clock was set back since.

    Documents may then be dated behind `C` by as much as the step. The clock of Redis witnesses it.
    """
    window = at(began.mongo - overlap)
    lower = window if stood is None else earliest(stood, window)
    step = (now.redis - began.redis) - (now.mongo - began.mongo)
    return lower if step <= STEP_TOLERANCE_MS or lower.ms is None else at(lower.ms - step)
