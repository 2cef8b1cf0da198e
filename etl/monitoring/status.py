"""The status: where each collection stands, read in a few round trips and written nowhere.

Nothing is retried: the next question gets a newer answer. MongoDB is asked for the lag, and for a count while
a collection is read as a whole; when it is away the rest is reported all the same.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from etl.cache.client import Command, Wire
from etl.cache.keys import StateKeys
from etl.checkpoint.history import Entry, History, began, ended
from etl.errors import EtlError, Transient
from etl.model.moments import moment_text
from etl.model.state import deferral_from_text
from schemas.ids import readable_id
from schemas.position import Position, at, position_from_text
from schemas.values import date_text

SHOWN_DEFERRED: Final = 10
"""How many of the documents that wait for a lock are named; `deferred_count` counts them all."""


class Source(Protocol):
    """The documents, as the status reads them: see `etl.mongo.reader.Source`."""

    def waited(self, reached: Position) -> float:
        """How long the oldest document after `reached` has waited, in seconds."""
        ...

    def ping(self) -> None:
        """Raise an error where MongoDB does not answer."""
        ...

    def count(self) -> int:
        """About how many documents there are."""
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
    """How long the oldest document that no cycle has reached has waited; 0 where there is none."""
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
    leader: str | None
    """The daemon that runs the cycles, `host:pid`."""
    scans: list[dict[str, Any]]
    """Reads of the whole collection that have not ended: `mode` (`cold_start`, `backfill`), `done` and
    `total` in documents, `began`, `holder` (None: interrupted, it resumes)."""
    reconciliation: dict[str, Any] | None
    """Counts of the last reconciliation, and when it `ended`."""
    follow: dict[str, Any] | None
    """The follower: `state` (`following`, `behind`, `stopped`), `lag_seconds`, `last_event`, `holder`;
    None where there was none."""
    error: str | None
    """Why MongoDB could not be asked for the lag."""

    def as_dict(self) -> dict[str, Any]:
        """The status as `etl status --json` prints it, in the order of the fields above."""
        return asdict(self)


def read_status(
    wire: Wire,
    sources: Iterable[tuple[str, StateKeys, Source]],
    cycle_seconds: int,
    mongodb_away: str | None = None,
) -> list[CollectionStatus]:
    """The status of each collection, given its name, its keys and its documents.

    `mongodb_away` says why MongoDB does not answer, where that is known already: it is not asked then.

    Raises:
        EtlError: Redis is away, or refuses.
    """
    mongodb = _MongoDB(mongodb_away)
    return [_status(wire, *one, cycle_seconds, mongodb) for one in sources]


class _MongoDB:
    """Asks for what only MongoDB knows, until it proves to be away: one wait for it is enough."""

    def __init__(self, away: str | None) -> None:
        self._away = away

    def ask(
        self, source: Source, reached: Position | None, *, count: bool
    ) -> tuple[float | None, int | None, str | None]:
        """The lag, the number of documents if wanted, and why they are not known."""
        if self._away is not None:
            return None, None, self._away
        try:
            lag = None
            if reached is None:
                source.ping()
            else:
                lag = source.waited(reached)
            return lag, source.count() if count else None, None
        except Transient as error:
            self._away = str(error)
            return None, None, self._away
        except EtlError as error:
            return None, None, str(error)


def _status(
    wire: Wire, name: str, keys: StateKeys, source: Source, cycle_seconds: int, mongodb: _MongoDB
) -> CollectionStatus:
    checkpoint, backfill, *replies, time = wire.exchange(_questions(keys))
    dead, deferred, (_, some), lease, backfill_lease, queues, leader, follower, following = replies
    kept, cut = _mapping(checkpoint), _mapping(backfill)
    history = History(wire, keys)
    last, success, reconciled = history.last_cycle(), history.last_success(), history.reconciliation()
    lengths = _lengths(wire, sorted(queues))
    position = position_from_text(kept["position"]) if kept.get("position") else None
    scans = [*_scan(kept, "cold_start", lease), *_scan(cut, "backfill", backfill_lease)]
    # After Redis: when that is away, nothing waits for MongoDB before it is reported.
    lag, total, error = mongodb.ask(source, position or _start(kept), count=bool(scans))
    return CollectionStatus(
        collection=name,
        last_id=readable_id(position.id) if position else None,
        last_timestamp=None if position is None or position.ms is None else moment_text(position.ms),
        lag_seconds=lag,
        last_cycle=dict(last) if last else None,
        seconds_since_success=_since(success, time),
        next_cycle=date_text(began(last) + timedelta(seconds=cycle_seconds)) if last else None,
        dead_letters=dead,
        dead_letters_beyond=int(kept.get("dead_letters_beyond", 0)),
        deferred=_deferred(some),
        deferred_count=deferred,
        unreachable=success["unreachable"] if success else None,
        lease_holder=lease or None,
        queues=lengths,
        leader=leader,
        scans=[scan | {"total": total} for scan in scans],
        reconciliation=dict(reconciled) if reconciled else None,
        follow=_follow(follower, following, time),
        error=error,
    )


def _questions(own: StateKeys) -> list[Command]:
    return [
        ("HGETALL", own.checkpoint),
        ("HGETALL", own.backfill),
        ("HLEN", own.dead_letters),
        ("HLEN", own.deferred),
        ("HSCAN", own.deferred, 0, "COUNT", SHOWN_DEFERRED),
        ("GET", own.lease),
        ("GET", own.backfill_lease),
        ("SMEMBERS", own.queues),
        ("GET", own.leader),
        ("HMGET", own.follow, "event_seconds", "caught_up"),
        ("GET", own.follow_lease),
        ("TIME",),
    ]


def _mapping(reply: list[str]) -> dict[str, str]:
    """A hash as RESP2 sends it: fields and values in turn."""
    return dict(zip(reply[::2], reply[1::2], strict=True))


def _start(kept: Mapping[str, str]) -> Position | None:
    """Where a collection begins that had no document when its last cycle finished; None before that cycle."""
    clock = kept.get("mongo_clock")
    return at(int(clock)) if clock else None


def _scan(kept: Mapping[str, str], mode: str, lease: str | None) -> Iterator[dict[str, Any]]:
    """The read of the whole collection that a checkpoint is in the middle of, or none."""
    if kept.get("scan_mode") == mode:
        clock = kept.get("scan_mongo_clock")
        yield {
            "mode": mode,
            "done": int(kept.get("scan_done") or 0),
            "began": moment_text(int(clock)) if clock else None,
            "holder": lease,
        }


def _follow(
    known: tuple[str | None, str | None], holder: str | None, time: tuple[str, str]
) -> dict[str, Any] | None:
    event, caught_up = known
    if caught_up is None and holder is None:
        return None
    behind = caught_up == "0" and event is not None
    return {
        "state": "stopped" if holder is None else "behind" if behind else "following",
        "lag_seconds": max(0.0, int(time[0]) - float(event or 0)) if behind else 0.0,
        "last_event": None if event is None else moment_text(round(float(event) * 1000)),
        "holder": holder,
    }


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
