"""The status: where each collection stands, read in a few round trips and written nowhere.

It tries nothing twice: who asks again a moment later gets a newer answer. MongoDB is asked for one
date only, and when it is away the rest is told all the same.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from etl.cache.client import Command, Wire
from etl.cache.keys import state_keys
from etl.checkpoint.history import Entry, History, began, ended
from etl.errors import EtlError, Transient
from etl.model.moments import moment_text
from etl.model.state import deferral_from_text
from schemas.ids import readable_id
from schemas.position import position_from_text
from schemas.values import date_text

SHOWN_DEFERRED: Final = 10
"""So many of the documents that wait for a lock are named; `deferred_count` counts them all."""


class Source(Protocol):
    """The documents, as the status looks at them: see `etl.mongo.reader.Source`."""

    def newest(self) -> int | None:
        """The greatest timestamp that is not in the future, in milliseconds since the epoch."""
        ...


@dataclass(frozen=True, slots=True)
class CollectionStatus:
    """Where one collection stands. Moments are ISO 8601 in UTC; None is what is not known."""

    collection: str
    last_id: str | None
    """`_id` of the watermark, as people read it."""
    last_timestamp: str | None
    """Timestamp of the watermark."""
    lag_seconds: float | None
    """How far the watermark is behind the newest document that is not dated in the future."""
    last_cycle: dict[str, Any] | None
    """The report of the newest cycle, and when it `began`."""
    seconds_since_success: float | None
    """How long ago the newest cycle that finished did so."""
    next_cycle: str | None
    """When a daemon begins the next cycle; in the past where none runs."""
    dead_letters: int
    dead_letters_beyond: int
    """How many were counted only, because too many are kept already."""
    deferred: list[dict[str, Any]]
    """Some of the documents that wait for a lock: `id`, `lock`, `since`."""
    deferred_count: int
    unreachable: int | None
    """How many documents had no date to be found by when the newest finished cycle ended."""
    lease_holder: str | None
    """Who works on the collection right now."""
    queues: dict[str, int]
    """The queues that the collection feeds, and how long they are."""
    error: str | None
    """Why MongoDB could not be asked for the lag."""

    def as_dict(self) -> dict[str, Any]:
        """The status as `etl status --json` prints it, in the order of the fields above."""
        return asdict(self)


def read_status(
    wire: Wire, sources: Iterable[tuple[str, Source]], cycle_seconds: int
) -> list[CollectionStatus]:
    """The status of each collection, given its name and its documents.

    Raises:
        EtlError: Redis is away, or refuses.
    """
    newest = _Newest()
    return [_status(wire, name, partial(newest.of, source), cycle_seconds) for name, source in sources]


class _Glance(NamedTuple):
    """What MongoDB said of the newest document, or why it said nothing."""

    ms: int | None
    error: str | None


class _Newest:
    """Asks each source in turn, until MongoDB proves to be away: waiting for it once is enough."""

    def __init__(self) -> None:
        self._away: _Glance | None = None

    def of(self, source: Source) -> _Glance:
        """What `source` says."""
        if self._away is not None:
            return self._away
        try:
            return _Glance(source.newest(), None)
        except Transient as error:
            self._away = _Glance(None, str(error))
            return self._away
        except EtlError as error:
            return _Glance(None, str(error))


def _status(wire: Wire, name: str, newest: Callable[[], _Glance], cycle_seconds: int) -> CollectionStatus:
    (position, beyond), dead, deferred, (_, some), lease, queues, time = wire.exchange(_look(name))
    history = History(wire, name)
    last, success = history.last_cycle(), history.last_success()
    lengths = _lengths(wire, sorted(queues))
    stands = position_from_text(position) if position else None
    watermark = stands.ms if stands else None
    glance = newest()  # after Redis: when that is away, nobody waits for MongoDB before being told
    return CollectionStatus(
        collection=name,
        last_id=readable_id(stands.id) if stands else None,
        last_timestamp=None if watermark is None else moment_text(watermark),
        lag_seconds=_lag(watermark, glance.ms),
        last_cycle=dict(last) if last else None,
        seconds_since_success=_since(success, time),
        next_cycle=date_text(began(last) + timedelta(seconds=cycle_seconds)) if last else None,
        dead_letters=dead,
        dead_letters_beyond=int(beyond or 0),
        deferred=_deferred(some),
        deferred_count=deferred,
        unreachable=success["unreachable"] if success else None,
        lease_holder=lease or None,
        queues=lengths,
        error=glance.error,
    )


def _look(name: str) -> list[Command]:
    own = state_keys(name)
    return [
        ("HMGET", own.checkpoint, "position", "dead_letters_beyond"),
        ("HLEN", own.dead_letters),
        ("HLEN", own.deferred),
        ("HSCAN", own.deferred, 0, "COUNT", SHOWN_DEFERRED),
        ("GET", own.lease),
        ("SMEMBERS", own.queues),
        ("TIME",),
    ]


def _lag(watermark: int | None, newest: int | None) -> float | None:
    if watermark is None or newest is None:
        return None
    return max(0, newest - watermark) / 1000


def _since(success: Entry | None, time: tuple[str, str]) -> float | None:
    """Seconds from the end of a cycle to the present, by the clock of Redis."""
    if success is None:
        return None
    now = datetime.fromtimestamp(int(time[0]), UTC) + timedelta(microseconds=int(time[1]))
    return max(0.0, round((now - ended(success)).total_seconds(), 3))


def _deferred(scanned: list[str]) -> list[dict[str, Any]]:
    """Some of what waits, the longest first: a scan of a hash returns fields and values in turn."""
    pairs = list(zip(scanned[::2], scanned[1::2], strict=True))[:SHOWN_DEFERRED]
    waiting = [{"id": key} | deferral_from_text(text).as_dict() for key, text in pairs]
    return sorted(waiting, key=lambda one: str(one["since"]))


def _lengths(wire: Wire, queues: list[str]) -> dict[str, int]:
    """How long each queue is. One that somebody made into something else has no length: doctor says so."""
    kinds = wire.exchange([("TYPE", queue) for queue in queues]) if queues else []
    lists = [queue for queue, kind in zip(queues, kinds, strict=True) if kind in {"list", "none"}]
    lengths = wire.exchange([("LLEN", queue) for queue in lists]) if lists else []
    return dict(zip(lists, lengths, strict=True))
