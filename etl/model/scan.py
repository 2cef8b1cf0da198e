"""Scans of a collection: ranges of its index, scans that can be interrupted, checkpoints. No I/O."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from schemas.position import Position

ScanMode = Literal["delta", "cold_start", "backfill"]


class ServerTimes(NamedTuple):
    """The clocks of both servers, read together; milliseconds since the epoch."""

    mongo: int
    redis: int


class ScanRange(NamedTuple):
    """The documents after one position and before another, in index order."""

    after: Position
    end: Position


@dataclass(frozen=True, slots=True)
class Scan:
    """One scan, started at `clocks`: the documents after `cursor` and before `end`."""

    mode: ScanMode
    clocks: ServerTimes
    cursor: Position
    end: Position
    begin: Position | None = None
    """Its first position; for backfills only, to compare the bounds at a resume."""
    done: int = 0
    """Documents passed so far, interruptions included."""

    def moved(self, cursor: Position, documents: int = 0) -> "Scan":
        """The same scan with another cursor."""
        return replace(self, cursor=cursor, done=self.done + documents)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of earlier cycles: watermark, clocks at the start of the last finished one, interrupted scan.

    `clocks` is None until the first cycle has finished; until then there is a scan.
    """

    position: Position | None
    clocks: ServerTimes | None
    scan: Scan | None = None


class Origin(NamedTuple):
    """The source of a checkpoint."""

    source: str
    """The database, the collection and the timestamp field."""
    uuid: str
    """The UUID of the collection, which changes if it is dropped and created again. Empty if unknown."""


class Bounds(NamedTuple):
    """The part of a collection to backfill, in milliseconds since the epoch; None for no bound."""

    since: int | None = None
    until: int | None = None
    """Exclusive."""


class Backfilled(NamedTuple):
    """A finished backfill: both clocks at its start, and the newest position that is not in the future."""

    began: ServerTimes
    position: Position | None


def earliest(*positions: Position) -> Position:
    """The first position in index order."""
    return min(positions, key=Position.order)


def latest(*positions: Position | None) -> Position | None:
    """The last position in index order; None if there is none."""
    return max((p for p in positions if p is not None), key=Position.order, default=None)
