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
from etl.cache.client import Command, Wire, mapping, micros
from etl.cache.keys import StateKeys
from etl.cache.scripts import SCRIPTS
from etl.checkpoint.dead_letters import BEYOND_CAP
from etl.errors import CycleFailed, LeaseLost
from etl.model.batch import BatchOutcome
from etl.model.report import Report
from etl.model.scan import Checkpoint, Origin, Scan, ScanMode, ServerTimes
from etl.model.state import (
    DEAD_LETTER_CAP,
    DeadLetter,
    Deferral,
    State,
    dead_letter,
    dead_letter_from_text,
    deferral_from_text,
)
from etl.model.times import iso_utc
from etl.retry import Retry
from schemas.ids import id_from_readable
from schemas.position import Position, position_from_text

HISTORY_CAP: Final = 1000
"""Maximum number of reports of past runs per collection."""

_log = logging.getLogger("etl")

# The number of each key in KEYS of `lua/commit.lua`.
_NUMBERS: Final = {role: number for number, role in enumerate(StateKeys._fields[:8], start=1)}
_ARGUMENTS_PER_COMMAND: Final = 2000  # Lua takes some 8,000 at once


class Step:
    """The commands of one atomic step, in the order in which `lua/commit.lua` executes them."""

    def __init__(self) -> None:
        self.arguments: list[str | int] = []

    def add(self, key: str, name: str, *arguments: str | int) -> None:
        """Add one command on the key with this role."""
        self.arguments += [_NUMBERS[key], name, len(arguments), *arguments]

    def add_many(self, key: str, name: str, arguments: Sequence[str | int]) -> None:
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
        self._keys = keys
        self._steps = 0

    def load(self) -> State:
        """The state of the collection, read in one round trip.

        A checkpoint that cannot be read counts as none, so that the next cycle replaces it.
        """
        keys = self._keys
        commands: list[Command] = [
            ("HGETALL", keys.checkpoint),
            ("HGETALL", keys.published),
            ("HGETALL", keys.deferred),
            ("HLEN", keys.dead_letters),
            ("SMEMBERS", keys.queues),
            ("TIME",),
        ]
        replies = self._retry(lambda: self._wire.exchange(commands))
        kept, published, deferred, dead, queues, time = replies
        fields = mapping(kept)
        try:
            checkpoint, sweeps = _checkpoint(fields), json.loads(fields.get("sweeps", "{}"))
        except (ValueError, KeyError):
            text = (
                "%s cannot be read: the next cycle starts from the published watermark, or with a cold start"
            )
            _log.warning(text, keys.checkpoint, extra=logs.event("unreadable"))
            fields, checkpoint, sweeps = {}, None, {}
        return State(
            checkpoint=checkpoint or _from_published(mapping(published)),
            origin=Origin(fields["source"], fields["uuid"]) if "source" in fields else None,
            now=micros(time) // 1000,
            deferred={i: deferral_from_text(text) for i, text in mapping(deferred).items()},
            dead_letters=dead,
            sweeps=sweeps,
            queues=frozenset(queues),
            primaries=frozenset(fields.get("primaries", "").split()),
        )

    def reconciliation_due(self) -> int:
        """Number of keys that may lack their newest remaining document, since the last full repair."""
        [count] = self._retry(lambda: self._wire.exchange([("GET", self._keys.reconciliation_due)]))
        return int(count or 0)

    def reconciled(self, count: int) -> None:
        """Subtract the keys that were counted when a full repair began, because it has checked all of them."""
        self._wire.exchange([("DECRBY", self._keys.reconciliation_due, count)])

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
        keys = self._keys
        commands: list[Command] = [("HKEYS", keys.deferred), ("HKEYS", keys.dead_letters)]
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
        """Record one written batch and the progress of its scan.

        Args:
            token: the fencing token.
            scan: with the cursor after the batch.
            position: the new watermark; None if it does not move.
            outcome: the documents handled, deferred and rejected.
            retried: whether a version that already is a dead letter counts as another attempt.

        Returns:
            The new dead letters of the batch.
        """
        step = Step()
        letters = self._add_batch(step, outcome, retried=retried)
        step.add("checkpoint", "HSET", *_scan_fields(scan), *_position_fields(position))
        self._commit(token, position, step)
        return letters

    def follow(self, token: str, fields: Mapping[str, str | int], outcome: BatchOutcome) -> None:
        """Record one written batch of a follower, and set these fields of its checkpoint."""
        step = Step()
        self._add_batch(step, outcome, retried=False)
        step.add("checkpoint", "HSET", *_flat(fields.items()))
        self._commit(token, None, step)

    def replaced(self, primaries: frozenset[str]) -> bool:
        """Whether one of these primaries of Redis was replaced or restarted since they were recorded."""
        return _is_replaced(primaries, self._retry(self._wire.primaries))

    def field(self, name: str) -> str | None:
        """One field of the checkpoint."""
        command: Command = ("HGET", self._keys.checkpoint, name)
        value: str | None = self._retry(lambda: self._wire.exchange([command]))[0]
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

        Args:
            token: the fencing token.
            scan: the finished scan.
            position: the new watermark; None if there is none.
            report: of the cycle, for the history.
            sweeps: the cursor of the sweep of each queue's requests.
            primaries: the primaries of Redis when the last cycle ended; a reconciliation is due if one was replaced.
        """
        step = Step()
        present = self._compare(step, primaries)
        self._add_report(step, report, scan.clocks.mongo)
        step.add("published", "DEL")
        step.add("published", "HSET", *_published_fields(report))
        step.add("published", "EXPIRE", self._ttl)
        step.add("checkpoint", "HDEL", *_SCAN_FIELDS)
        fields = [*_clock_fields(scan.clocks), *_position_fields(position), "sweeps", json.dumps(sweeps)]
        fields += ["primaries", " ".join(sorted(present or primaries))]
        step.add("checkpoint", "HSET", *fields)
        self._commit(token, position, step)

    def end(self, token: str, scan: Scan, report: Report, primaries: frozenset[str]) -> None:
        """End a backfill: delete the finished scan. Called after the catch-up cycle.

        `primaries` are those when the backfill began: see `finish`.
        """
        step = Step()
        self._compare(step, primaries)
        self._add_report(step, report, scan.clocks.mongo)
        step.add("checkpoint", "HDEL", *_SCAN_FIELDS, "primaries")
        self._commit(token, None, step)

    def record(self, report: Report, began: int) -> None:
        """Keep the report of a run that did not finish; `began` in milliseconds since the epoch."""
        key = self._keys.history
        self._wire.exchange([("LPUSH", key, _entry(report, began)), ("LTRIM", key, 0, HISTORY_CAP - 1)])

    def _compare(self, step: Step, primaries: frozenset[str]) -> frozenset[str]:
        """Add to the step that a reconciliation is due if one of these primaries was replaced.

        The server that took over may lack writes that were acknowledged.

        Returns:
            The present primaries.
        """
        present = self._retry(self._wire.primaries)
        if _is_replaced(primaries, present):
            step.add("reconciliation_due", "INCRBY", 1)
            _log.warning(
                "a primary of Redis was replaced or restarted, and writes may be lost: etl verify --repair finds them",
                extra=logs.event("failover"),
            )
        return present

    def _add_batch(self, step: Step, outcome: BatchOutcome, *, retried: bool) -> list[DeadLetter]:
        """Add the documents handled, deferred and rejected to the step; return the new dead letters.

        At most `DEAD_LETTER_CAP` dead letters are kept, further ones are only counted.
        """
        rejected = {one.id: one for one in outcome.rejected}
        step.add_many("deferred", "HDEL", [*outcome.handled, *rejected])
        step.add_many("dead_letters", "HDEL", outcome.handled)
        step.add_many("queues", "SADD", sorted(outcome.queues))
        if outcome.incomplete:
            step.add("reconciliation_due", "INCRBY", outcome.incomplete)
        if not rejected and not outcome.deferred:
            return []
        # HMGET needs at least one field: the empty one never exists.
        commands: list[Command] = [
            ("TIME",),
            ("HLEN", self._keys.dead_letters),
            ("HMGET", self._keys.dead_letters, "", *rejected),
            ("HMGET", self._keys.deferred, "", *(one.id for one in outcome.deferred)),
        ]
        replies = self._retry(lambda: self._wire.exchange(commands))
        time, kept, (_, *earlier_letters), (_, *earlier_deferrals) = replies
        now = iso_utc(micros(time) // 1000)
        for deferred, text in zip(outcome.deferred, earlier_deferrals, strict=True):
            since = deferral_from_text(text).since if text else now
            step.add("deferred", "HSET", deferred.id, Deferral(deferred.lock, since).text())
        letters = []
        for rejection, text in zip(rejected.values(), earlier_letters, strict=True):
            earlier = dead_letter_from_text(text) if text else None
            if retried or earlier is None or earlier.version != rejection.version:
                letters.append(dead_letter(rejection, now, earlier))
        new = [letter for letter in letters if letter.attempts == 1][: max(0, DEAD_LETTER_CAP - kept)]
        stored = [letter for letter in letters if letter.attempts > 1] + new
        step.add_many("dead_letters", "HSET", _flat((letter.id, letter.text()) for letter in stored))
        if len(stored) < len(letters):
            step.add("checkpoint", "HINCRBY", BEYOND_CAP, len(letters) - len(stored))
        return letters

    def _add_report(self, step: Step, report: Report, began: int) -> None:
        step.add("history", "LPUSH", _entry(report, began))
        step.add("history", "LTRIM", 0, HISTORY_CAP - 1)

    def _commit(self, token: str, position: Position | None, step: Step) -> None:
        ms = "" if position is None or position.ms is None else str(position.ms)
        self._steps += 1
        command = SCRIPTS["commit"].call(self._keys[: len(_NUMBERS)], token, self._steps, ms, *step.arguments)
        [answer] = self._retry(lambda: self._wire.exchange([command]))
        if isinstance(answer, str):
            raise LeaseLost(answer)
        if answer < 0:
            raise CycleFailed("the checkpoint would have gone backwards")


def _is_replaced(recorded: frozenset[str], present: frozenset[str]) -> bool:
    """Whether a recorded primary is missing; False if none are present, as the user may not ask for them."""
    return bool(present) and not recorded <= present


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
