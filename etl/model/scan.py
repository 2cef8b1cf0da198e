"""How far the reading of a collection is: ranges of its index, scans that may be cut, checkpoints. No I/O."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from schemas.position import Position

ScanMode = Literal["delta", "cold_start", "backfill"]


class ServerTimes(NamedTuple):
    """The clocks of both servers at one moment, in milliseconds since the epoch."""

    mongo: int
    redis: int


class ScanRange(NamedTuple):
    """The documents after one position and before another, in index order."""

    after: Position
    end: Position


@dataclass(frozen=True, slots=True)
class Scan:
    """One reading, begun at `clocks`: everything after `cursor` and before `end`."""

    mode: ScanMode
    clocks: ServerTimes
    cursor: Position
    end: Position
    begin: Position | None = None
    """Where it was first to begin; of a backfill only, which may be asked for with other bounds."""
    done: int = 0
    """How many documents it has passed, however often it was cut."""

    def moved(self, cursor: Position, documents: int = 0) -> "Scan":
        """The same scan, further on by so many documents."""
        return replace(self, cursor=cursor, done=self.done + documents)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What earlier cycles left: the watermark, when the last finished one began, a scan cut short.

    `clocks` is None until a first cycle has finished; there is a scan then.
    """

    position: Position | None
    clocks: ServerTimes | None
    scan: Scan | None = None


class Origin(NamedTuple):
    """Which documents a checkpoint is about."""

    source: str
    """The database, the collection and the timestamp field."""
    uuid: str
    """That of the collection: another one once it was dropped and created again. Empty where it is not known."""


class Bounds(NamedTuple):
    """The part of a collection that is backfilled, in milliseconds since the epoch; None where it is open."""

    since: int | None = None
    until: int | None = None
    """Before this."""


class Backfilled(NamedTuple):
    """What a backfill has read: both clocks when it began, and the newest position not in the future."""

    began: ServerTimes
    position: Position | None


def earliest(*positions: Position) -> Position:
    """The first of them in index order."""
    return min(positions, key=Position.order)


def latest(*positions: Position | None) -> Position | None:
    """The last of them in index order; None where there is none."""
    return max((p for p in positions if p is not None), key=Position.order, default=None)
