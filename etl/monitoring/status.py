"""The status of each collection, read in a few round trips.

Nothing is retried. MongoDB is asked for the lag, and for a count during a cold start or a backfill; if it does not
answer, the rest is reported.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Final, NamedTuple

from etl.cache.client import Command, Wire, mapping, micros
from etl.cache.keys import StateKeys
from etl.checkpoint.history import Entry, History, began, ended
from etl.errors import EtlError, TransientError
from etl.model.state import deferral_from_text
from etl.model.times import iso_utc
from etl.mongo.reader import MongoReader
from schemas.ids import readable_id
from schemas.position import Position, at, position_from_text
from schemas.values import date_text

SHOWN_DEFERRED: Final = 10
"""Number of deferred documents listed; `deferred_count` counts all."""


@dataclass(frozen=True, slots=True)
class CollectionStatus:
    """The status of one collection. Times are ISO 8601 in UTC; None means unknown."""

    collection: str
    last_id: str | None
    """`_id` of the watermark, readable form."""
    last_timestamp: str | None
    """Timestamp of the watermark."""
    lag_seconds: float | None
    """Age of the oldest change that is not applied yet; 0 if there is none."""
    last_cycle: dict[str, Any] | None
    """The report of the last cycle, with `began`."""
    seconds_since_success: float | None
    """Time since the end of the last successful cycle."""
    next_cycle: str | None
    """Time of the next cycle; in the past if no daemon runs."""
    dead_letters: int
    dead_letters_beyond: int
    """Dead letters that were counted but not kept."""
    deferred: list[dict[str, Any]]
    """Some of the deferred documents: `id`, `lock`, `since`."""
    deferred_count: int
    unreachable: int | None
    """Documents without a timestamp at the end of the last successful cycle."""
    lease_holder: str | None
    """The holder of the lease of the cycle."""
    queues: dict[str, int]
    """The queues that the collection fills, with their lengths."""
    leader: str | None
    """The daemon that runs the cycles, `host:pid`."""
    scans: list[dict[str, Any]]
    """Cold starts and backfills that have not ended: `mode` (`cold_start`, `backfill`), `done` and `total` in
    documents, `began`, `holder` (None: interrupted, it resumes)."""
    reconciliation: dict[str, Any] | None
    """Counts of the last reconciliation, with `ended`."""
    follow: dict[str, Any] | None
    """The follower: `state` (`starting`, `following`, `behind`, `stopped`), `lag_seconds` (None unless `following` or
    `behind`), `last_event`, `holder`; None if there was none."""
    error: str | None
    """Why MongoDB could not be asked for the lag."""

    def as_dict(self) -> dict[str, Any]:
        """The status as `etl status --json` prints it, in the order of the fields above."""
        return asdict(self)


def read_status(
    wire: Wire,
    sources: Iterable[tuple[str, StateKeys, MongoReader]],
    cycle_seconds: int,
    mongodb_away: str | None = None,
) -> list[CollectionStatus]:
    """The status of each collection, given its name, its keys and its documents.

    `mongodb_away` is the reason why MongoDB does not answer, if known: it is not asked then.

    Raises:
        EtlError: Redis does not answer, or refuses.
    """
    statuses = []
    for name, keys, reader in sources:
        status, mongodb_away = _status(wire, name, keys, reader, cycle_seconds, mongodb_away)
        statuses.append(status)
    return statuses


class _Answer(NamedTuple):
    """MongoDB's answer about one collection."""

    lag: float | None = None
    documents: int | None = None
    error: str | None = None
    away: str | None = None
    """The error if MongoDB does not answer at all: one time limit is enough, so it is not asked again."""


def _ask(reader: MongoReader, reached: Position | None, *, count: bool) -> _Answer:
    """Ask for the lag, and for the number of documents if wanted."""
    try:
        lag = None
        if reached is None:
            reader.ping()
        else:
            lag = reader.waited(reached)
        return _Answer(lag, reader.count() if count else None)
    except TransientError as error:
        return _Answer(error=str(error), away=str(error))
    except EtlError as error:
        return _Answer(error=str(error))


def _status(
    wire: Wire, name: str, keys: StateKeys, reader: MongoReader, cycle_seconds: int, away: str | None
) -> tuple[CollectionStatus, str | None]:
    """The status, and why MongoDB does not answer, if it does not."""
    checkpoint, backfill, *replies, time = wire.exchange(_commands(keys))
    now = micros(time) / 1e6
    dead, deferred, (_, some), lease, backfill_lease, queues, leader, follower, following = replies
    kept, cut = mapping(checkpoint), mapping(backfill)
    history = History(wire, keys)
    last, success, reconciled = history.last_cycle(), history.last_success(), history.reconciliation()
    lengths = _lengths(wire, sorted(queues))
    position = position_from_text(kept["position"]) if kept.get("position") else None
    scans = [*_scan(kept, "cold_start", lease), *_scan(cut, "backfill", backfill_lease)]
    # After Redis: if Redis does not answer, do not wait for MongoDB.
    if away is None:
        answer = _ask(reader, position or _start(kept), count=bool(scans))
    else:
        answer = _Answer(error=away, away=away)
    lag, follow = answer.lag, _follow(follower, following, now)
    if lag is not None and follow is not None and follow["lag_seconds"] is not None:
        lag = follow["lag_seconds"]  # the watermark is only moved by cycles
    status = CollectionStatus(
        collection=name,
        last_id=readable_id(position.id) if position else None,
        last_timestamp=None if position is None or position.ms is None else iso_utc(position.ms),
        lag_seconds=lag,
        last_cycle=dict(last) if last else None,
        seconds_since_success=_since(success, now),
        next_cycle=date_text(began(last) + timedelta(seconds=cycle_seconds)) if last else None,
        dead_letters=dead,
        dead_letters_beyond=int(kept.get("dead_letters_beyond", 0)),
        deferred=_deferred(some),
        deferred_count=deferred,
        unreachable=success["unreachable"] if success else None,
        lease_holder=lease or None,
        queues=lengths,
        leader=leader,
        scans=[scan | {"total": answer.documents} for scan in scans],
        reconciliation=dict(reconciled) if reconciled else None,
        follow=follow,
        error=answer.error,
    )
    return status, answer.away


def _commands(keys: StateKeys) -> list[Command]:
    return [
        ("HGETALL", keys.checkpoint),
        ("HGETALL", keys.backfill),
        ("HLEN", keys.dead_letters),
        ("HLEN", keys.deferred),
        ("HSCAN", keys.deferred, 0, "COUNT", SHOWN_DEFERRED),
        ("GET", keys.lease),
        ("GET", keys.backfill_lease),
        ("SMEMBERS", keys.queues),
        ("GET", keys.leader),
        ("HMGET", keys.follow, "event_seconds", "caught_up"),
        ("GET", keys.follow_lease),
        ("TIME",),
    ]


def _start(kept: Mapping[str, str]) -> Position | None:
    """The position of a collection without documents, from the clock of its last cycle; None before the first."""
    clock = kept.get("mongo_clock")
    return at(int(clock)) if clock else None


def _scan(kept: Mapping[str, str], mode: str, lease: str | None) -> Iterator[dict[str, Any]]:
    """The unfinished cold start or backfill of a checkpoint, if there is one."""
    if kept.get("scan_mode") == mode:
        clock = kept.get("scan_mongo_clock")
        yield {
            "mode": mode,
            "done": int(kept.get("scan_done") or 0),
            "began": iso_utc(int(clock)) if clock else None,
            "holder": lease,
        }


def _follow(known: tuple[str | None, str | None], holder: str | None, now: float) -> dict[str, Any] | None:
    event, caught_up = known
    if caught_up is None and holder is None:
        return None
    state, lag = {
        "1": ("following", 0.0),
        "0": ("behind", max(0.0, now - float(event or now))),
    }.get(caught_up or "", ("starting", None))
    return {
        "state": state if holder else "stopped",
        "lag_seconds": lag if holder else None,
        "last_event": None if event is None else iso_utc(round(float(event) * 1000)),
        "holder": holder,
    }


def _since(success: Entry | None, now: float) -> float | None:
    """Seconds since the end of a cycle, by the clock of Redis."""
    if success is None:
        return None
    return max(0.0, round(now - ended(success).timestamp(), 3))


def _deferred(scanned: list[str]) -> list[dict[str, Any]]:
    """Some deferred documents, the oldest first, from the reply of HSCAN."""
    pairs = [*mapping(scanned).items()][:SHOWN_DEFERRED]
    waiting = [{"id": key} | deferral_from_text(text).as_dict() for key, text in pairs]
    return sorted(waiting, key=lambda one: str(one["since"]))


def _lengths(wire: Wire, queues: list[str]) -> dict[str, int]:
    """The length of each queue; a key of another type is left out, `etl doctor` reports it."""
    kinds = wire.exchange([("TYPE", queue) for queue in queues]) if queues else []
    lists = [queue for queue, kind in zip(queues, kinds, strict=True) if kind in {"list", "none"}]
    lengths = wire.exchange([("LLEN", queue) for queue in lists]) if lists else []
    return dict(zip(lists, lengths, strict=True))
