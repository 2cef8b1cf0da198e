"""Stage 4, checkpoint: the watermark and the state that moves with it, in one fenced atomic step.

It is stored in Redis beside the data, so that a restored backup of Redis has the position that belongs to its data.
The keys and their types are listed in `lua/commit.lua`.
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, cast

from bson.datetime_ms import DatetimeMS

from etl import logs
from etl.cache.client import Command, Wire
from etl.cache.keys import StateKeys
from etl.cache.scripts import SCRIPTS
from etl.checkpoint.dead_letters import DeadLetters
from etl.errors import CycleFailed, LeaseLost
from etl.model.batch import BatchOutcome
from etl.model.report import Report
from etl.model.scan import Checkpoint, Origin, Scan, ScanMode, ServerTimes
from etl.model.state import DEAD_LETTER_CAP, DeadLetter, Deferral, State, dead_letter, deferral_from_text
from etl.model.times import iso_utc
from etl.retry import Retry
from schemas.ids import id_from_readable
from schemas.position import Position, position_from_text

HISTORY_CAP: Final = 1000
"""Maximum number of reports of past runs per collection."""

_log = logging.getLogger("etl")

# The indices of the keys in `lua/commit.lua`.
_KEYS: Final = {name: number for number, name in enumerate(StateKeys._fields[:8], start=1)}
_ARGUMENTS_PER_COMMAND: Final = 2000  # Lua takes some 8,000 at once


class Step:
    """The commands of one atomic step, in the order in which `lua/commit.lua` executes them."""

    def __init__(self) -> None:
        self.arguments: list[str | int] = []

    def add(self, key: str, name: str, *arguments: str | int) -> None:
        """Add one command on the key with this role."""
        self.arguments += [_KEYS[key], name, len(arguments), *arguments]

    def each(self, key: str, name: str, arguments: Sequence[str | int]) -> None:
        """Add one command with many arguments, split into several for Lua's stack; none without arguments."""
        for start in range(0, len(arguments), _ARGUMENTS_PER_COMMAND):
            self.add(key, name, *arguments[start : start + _ARGUMENTS_PER_COMMAND])


class CheckpointStore:
    """The checkpoint of one collection, with deferrals, dead letters and history.

    A step is built once and sent until it is answered, so the retries are in here. Its number makes it idempotent: it
    is executed once even if it arrives several times. Every method raises `TransientError`, `ConfigurationError` or
    `CycleFailed` (see `Wire`); those that move the checkpoint also raise `LeaseLost` if another holder has taken over.
    """

    def __init__(self, wire: Wire, keys: StateKeys, published_ttl: int, retry: Retry) -> None:
        self._wire = wire
        self._retry = retry
        self._ttl = published_ttl
        self._own = keys
        self._steps = 0
        self._dead = DeadLetters(wire, keys, retry)

    def load(self) -> State:
        """The state of the collection, read in one round trip.

        A checkpoint that cannot be read counts as none, so that the next cycle replaces it.
        """
        own = self._own
        commands: list[Command] = [
            ("HGETALL", own.checkpoint),
            ("HGETALL", own.published),
            ("HGETALL", own.deferred),
            ("HLEN", own.dead_letters),
            ("SMEMBERS", own.queues),
            ("TIME",),
        ]
        replies = self._retry(lambda: self._wire.exchange(commands))
        kept, published, deferred, dead, queues, (seconds, micros) = replies
        fields = _mapping(kept)
        try:
            checkpoint, sweeps = _checkpoint(fields), json.loads(fields.get("sweeps", "{}"))
        except (ValueError, KeyError):
            text = "%s cannot be read: the next cycle begins at the published watermark, or anew"
            _log.warning(text, own.checkpoint, extra=logs.event("unreadable"))
            fields, checkpoint, sweeps = {}, None, {}
        return State(
            checkpoint=checkpoint or _from_published(_mapping(published)),
            origin=Origin(fields["source"], fields["uuid"]) if "source" in fields else None,
            now=int(seconds) * 1000 + int(micros) // 1000,
            deferred={i: deferral_from_text(text) for i, text in _mapping(deferred).items()},
            dead_letters=dead,
            sweeps=sweeps,
            queues=frozenset(queues),
            primaries=frozenset(fields.get("primaries", "").split()),
        )

    def reconciliation_due(self) -> int:
        """Number of keys that may lack their newest remaining document, since the last full repair."""
        [count] = self._retry(lambda: self._wire.exchange([("GET", self._own.reconciliation_due)]))
        return int(count or 0)

    def reconciled(self, count: int) -> None:
        """Subtract the keys that were counted when a full repair began, because it has checked all of them."""
        self._wire.exchange([("DECRBY", self._own.reconciliation_due, count)])

    def identify(self, token: str, origin: Origin) -> None:
        """Record the source of the checkpoint, and delete the checkpoint of an earlier source."""
        step = Step()
        step.add("checkpoint", "DEL")
        step.add("checkpoint", "HSET", *_flat(origin._asdict().items()))
        self._commit(token, None, step)

    def remember_primaries(self, token: str) -> frozenset[str]:
        """Record the present primaries of Redis, for `finish` or `end` to compare."""
        present = self._retry(self._wire.primaries)
        step = Step()
        step.add("checkpoint", "HSET", "primaries", " ".join(sorted(present)))
        self._commit(token, None, step)
        return present

    def waiting(self) -> frozenset[str]:
        """The `_id`s that are deferred or dead letters; a commit clears them once they are applied."""
        own = self._own
        commands: list[Command] = [("HKEYS", own.deferred), ("HKEYS", own.dead_letters)]
        deferred, dead = self._retry(lambda: self._wire.exchange(commands))
        return frozenset([*deferred, *dead])

    def advance(
        self,
        token: str,
        scan: Scan,
        position: Position | None,
        outcome: BatchOutcome,
        *,
        retried: bool = False,
    ) -> list[DeadLetter]:
        """Record one written batch: its documents handled, deferred and rejected, and the cursor of the scan.

        A version that is a dead letter already is not counted again, unless `retried` says that a person retries it.

        Returns:
            The new dead letters of the batch.
        """
        step = Step()
        letters = self._note(step, outcome, retried=retried)
        step.add("checkpoint", "HSET", *_scan_fields(scan), *_position_fields(position))
        self._commit(token, position, step)
        return letters

    def follow(self, token: str, fields: Mapping[str, str | int], outcome: BatchOutcome) -> None:
        """Record one written batch of a follower, and these fields of its checkpoint."""
        step = Step()
        self._note(step, outcome, retried=False)
        step.add("checkpoint", "HSET", *_flat(fields.items()))
        self._commit(token, None, step)

    def replaced(self, primaries: frozenset[str]) -> bool:
        """Whether one of these primaries of Redis is none any more; False where the user may not ask for them."""
        present = self._retry(self._wire.primaries)
        return bool(present) and not primaries <= present

    def field(self, name: str) -> str | None:
        """One field of the checkpoint."""
        value: str | None = self._retry(lambda: self._wire.exchange([("HGET", self._own.checkpoint, name)]))[
            0
        ]
        return value

    def finish(
        self,
        token: str,
        scan: Scan,
        position: Position | None,
        report: Report,
        sweeps: Mapping[str, str],
        primaries: frozenset[str],
    ) -> None:
        """End the cycle: delete the finished scan, and publish the watermark.

        Where one of these `primaries` of Redis, recorded earlier, is none any more, a reconciliation is due.
        """
        step = Step()
        present = self._compare(step, primaries)
        self._record(step, report, scan.clocks.mongo)
        step.add("published", "DEL")
        step.add("published", "HSET", *_published_fields(report))
        step.add("published", "EXPIRE", self._ttl)
        step.add("checkpoint", "HDEL", *_SCAN_FIELDS)
        fields = [*_clock_fields(scan.clocks), *_position_fields(position), "sweeps", json.dumps(sweeps)]
        fields += ["primaries", " ".join(sorted(present or primaries))]
        step.add("checkpoint", "HSET", *fields)
        self._commit(token, position, step)

    def end(self, token: str, scan: Scan, report: Report, primaries: frozenset[str]) -> None:
        """End a backfill: delete the finished scan. Called after the cycle that applies the changes made meanwhile.

        `primaries` are those of its beginning: see `finish`.
        """
        step = Step()
        self._compare(step, primaries)
        self._record(step, report, scan.clocks.mongo)
        step.add("checkpoint", "HDEL", *_SCAN_FIELDS, "primaries")
        self._commit(token, None, step)

    def record(self, report: Report, began: int) -> None:
        """Keep the report of a run that did not finish; `began` in milliseconds since the epoch."""
        own = self._own.history
        self._wire.exchange([("LPUSH", own, _entry(report, began)), ("LTRIM", own, 0, HISTORY_CAP - 1)])

    def _compare(self, step: Step, primaries: frozenset[str]) -> frozenset[str]:
        """Add to the step that a reconciliation is due if one of `primaries` is none any more; the present ones.

        The server that took over may lack writes that were acknowledged.
        """
        present = self._retry(self._wire.primaries)
        if present and not primaries <= present:
            step.add("reconciliation_due", "INCRBY", 1)
            _log.warning(
                "a primary of Redis was replaced or restarted, and writes may be lost: etl verify --repair finds them",
                extra=logs.event("failover"),
            )
        return present

    def _record(self, step: Step, report: Report, began: int) -> None:
        step.add("history", "LPUSH", _entry(report, began))
        step.add("history", "LTRIM", 0, HISTORY_CAP - 1)

    def _note(self, step: Step, outcome: BatchOutcome, *, retried: bool) -> list[DeadLetter]:
        """Add the documents handled, deferred and rejected to the step; return the new dead letters."""
        step.each("deferred", "HDEL", outcome.handled)
        step.each("dead_letters", "HDEL", outcome.handled)
        letters = self._refuse(step, outcome, retried=retried)
        self._defer(step, outcome)
        step.each("queues", "SADD", sorted(outcome.queues))
        if outcome.incomplete:
            step.add("reconciliation_due", "INCRBY", outcome.incomplete)
        return letters

    def _defer(self, step: Step, outcome: BatchOutcome) -> None:
        """Add the documents that wait for a lock, with the time since when each has waited."""
        if not outcome.deferred:
            return
        names = [one.id for one in outcome.deferred]
        known, (seconds, _) = self._retry(
            lambda: self._wire.exchange([("HMGET", self._own.deferred, *names), ("TIME",)])
        )
        now = iso_utc(int(seconds) * 1000)
        for one, text in zip(outcome.deferred, known, strict=True):
            since = deferral_from_text(text).since if text else now
            step.add("deferred", "HSET", one.id, Deferral(one.lock, since).text())

    def _refuse(self, step: Step, outcome: BatchOutcome, *, retried: bool) -> list[DeadLetter]:
        """Add dead letters up to the maximum, and remove rejected documents from the deferred ones."""
        if not outcome.rejected:
            return []
        rejected = {one.id: one for one in outcome.rejected}
        known = self._dead.find([*rejected])
        [(seconds, _), kept] = self._retry(
            lambda: self._wire.exchange([("TIME",), ("HLEN", self._own.dead_letters)])
        )
        now = iso_utc(int(seconds) * 1000)
        letters = [
            dead_letter(one, now, known.get(name))
            for name, one in rejected.items()
            if retried or name not in known or known[name].version != one.version
        ]
        new = [letter for letter in letters if letter.attempts == 1][: max(0, DEAD_LETTER_CAP - kept)]
        room = [letter for letter in letters if letter.attempts > 1] + new
        step.each("deferred", "HDEL", [*rejected])
        step.each("dead_letters", "HSET", _flat((letter.id, letter.text()) for letter in room))
        if len(room) < len(letters):
            step.add("checkpoint", "HINCRBY", "dead_letters_beyond", len(letters) - len(room))
        return letters

    def _commit(self, token: str, position: Position | None, step: Step) -> None:
        keys = [getattr(self._own, name) for name in _KEYS]
        ms = "" if position is None or position.ms is None else str(position.ms)
        self._steps += 1
        command = SCRIPTS["commit"].call(keys, token, self._steps, ms, *step.arguments)
        [answer] = self._retry(lambda: self._wire.exchange([command]))
        if isinstance(answer, str):
            raise LeaseLost(answer)
        if answer < 0:
            raise CycleFailed("the checkpoint would have gone backwards")


_SCAN_FIELDS: Final = tuple(
    f"scan_{part}" for part in ("mode", "mongo_clock", "redis_clock", "cursor", "end", "begin", "done")
)


def _scan_fields(scan: Scan) -> list[str | int]:
    begin = scan.begin.text() if scan.begin else ""
    values = (scan.mode, *scan.clocks, scan.cursor.text(), scan.end.text(), begin, scan.done)
    return _flat(zip(_SCAN_FIELDS, values, strict=True))


def _clock_fields(clocks: ServerTimes) -> list[str | int]:
    return ["mongo_clock", clocks.mongo, "redis_clock", clocks.redis]


def _position_fields(position: Position | None) -> list[str | int]:
    if position is None or position.ms is None:
        return []
    return ["position", position.text(), "position_ms", position.ms]


def _published_fields(report: Report) -> list[str | int]:
    fields = {
        "last_id": report.last_id,
        "last_timestamp": report.last_timestamp,
        "records_processed": report.records_processed,
        "sync_duration_ms": report.sync_duration_ms,
    }
    return _flat((name, value) for name, value in fields.items() if value is not None)


def _entry(report: Report, began: int) -> str:
    return json.dumps({"began": iso_utc(began)} | report.as_dict(), ensure_ascii=False)


def _flat(pairs: Iterable[tuple[Any, Any]]) -> list[str | int]:
    return [item for pair in pairs for item in pair]


def _mapping(reply: Sequence[str]) -> dict[str, str]:
    """A hash from its RESP2 reply, in which fields and values alternate."""
    return dict(zip(reply[::2], reply[1::2], strict=True))


def _checkpoint(kept: Mapping[str, str]) -> Checkpoint | None:
    if not {"mongo_clock", "scan_mongo_clock"} & kept.keys():
        return None
    return Checkpoint(
        position=position_from_text(kept["position"]) if "position" in kept else None,
        clocks=_clocks(kept, "") if "mongo_clock" in kept else None,
        scan=_scan(kept) if "scan_mongo_clock" in kept else None,
    )


def _scan(kept: Mapping[str, str]) -> Scan:
    return Scan(
        mode=cast("ScanMode", kept["scan_mode"]),
        clocks=_clocks(kept, "scan_"),
        cursor=position_from_text(kept["scan_cursor"]),
        end=position_from_text(kept["scan_end"]),
        begin=position_from_text(kept["scan_begin"]) if kept.get("scan_begin") else None,
        done=int(kept.get("scan_done", 0)),
    )


def _clocks(kept: Mapping[str, str], prefix: str) -> ServerTimes:
    return ServerTimes(int(kept[f"{prefix}mongo_clock"]), int(kept[f"{prefix}redis_clock"]))


def _from_published(published: Mapping[str, str]) -> Checkpoint | None:
    """A checkpoint derived from `etl:last_sync`, for a watermark written by another tool or a lost checkpoint."""
    try:
        moment = DatetimeMS(datetime.fromisoformat(published["last_timestamp"]))
        position = Position(moment, id_from_readable(published["last_id"]))
    except (KeyError, ValueError):
        return None
    return Checkpoint(position, ServerTimes(int(moment), int(moment)))
