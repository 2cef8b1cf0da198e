"""Stage 4, the checkpoint: the watermark and all that moves with it, in one fenced step.

It lives in Redis beside the data, so that a Redis restored to any moment has the position that
belongs to it. See `lua/commit.lua` for the keys and their types.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, cast

from bson.datetime_ms import DatetimeMS

from etl.cache.client import SCRIPTS, Wire
from etl.cache.keys import Companions
from etl.cache.resp import Command
from etl.checkpoint.dead_letters import DeadLetters
from etl.errors import CycleFailed, LeaseLost
from etl.model.moments import moment_text
from etl.model.outcome import Outcome
from etl.model.report import Report
from etl.model.state import (
    DEAD_LETTER_CAP,
    SEEN_CAP,
    DeadLetter,
    Deferral,
    Reached,
    State,
    deferral_from_text,
)
from etl.retry import Retry
from etl.sync.batch import Decision
from etl.sync.planner import Checkpoint, Clocks, Scan, ScanMode
from schemas.position import Position, id_from_readable, position_from_text

HISTORY_CAP: Final = 1000
"""So many reports of past runs are kept per collection."""

# The numbers by which `lua/commit.lua` knows the keys.
_KEYS: Final = {name: number for number, name in enumerate(Companions._fields[:10], start=1)}
_ARGUMENTS_A_COMMAND: Final = 2000  # Lua takes some 8,000 at once


class Step:
    """The commands of one atomic step, in the order `lua/commit.lua` carries them out."""

    def __init__(self) -> None:
        self.arguments: list[str | int] = []

    def add(self, key: str, name: str, *arguments: str | int) -> None:
        """One command on the companion `key`."""
        self.arguments += [_KEYS[key], name, len(arguments), *arguments]

    def each(self, key: str, name: str, arguments: Sequence[str | int]) -> None:
        """One command for many arguments, cut where Lua would overflow; none for none."""
        for start in range(0, len(arguments), _ARGUMENTS_A_COMMAND):
            self.add(key, name, *arguments[start : start + _ARGUMENTS_A_COMMAND])


class CheckpointStore:
    """The position of one collection and what belongs to it.

    A step is built once and its sending repeated, so the retries are in here; it is numbered, so that
    it is carried out once however often it arrives. Every method raises `Transient`, `Misconfigured` or
    `CycleFailed` (see `redis_wire.Wire`); those that move the checkpoint also `LeaseLost` where another
    holder has taken over.
    """

    def __init__(
        self, wire: Wire, collection: str, own: Companions, published_ttl: int, retry: Retry
    ) -> None:
        self._wire = wire
        self._retry = retry
        self._ttl = published_ttl
        self._own = own
        self._steps = 0
        self._dead = DeadLetters(wire, collection, retry)

    def load(self) -> State:
        """All that is known of the collection, in one round trip."""
        own = self._own
        commands: list[Command] = [
            ("HGETALL", own.checkpoint),
            ("HGETALL", own.published),
            ("HGETALL", own.deferred),
            ("HLEN", own.dead_letters),
            ("ZCARD", own.seen),
            ("ZCARD", own.claims),
            ("SMEMBERS", own.queues),
            ("TIME",),
        ]
        replies = self._retry(lambda: self._wire.exchange(commands))
        kept, published, deferred, dead, seen, claims, queues, (seconds, micros) = replies
        return State(
            checkpoint=_checkpoint(_mapping(kept)) or _from_published(_mapping(published)),
            now=int(seconds) * 1000 + int(micros) // 1000,
            deferred={i: deferral_from_text(text) for i, text in _mapping(deferred).items()},
            dead_letters=dead,
            seen=seen,
            claims=claims,
            queues=frozenset(queues),
        )

    def known_dead(self, outcomes: Sequence[Outcome]) -> Mapping[str, DeadLetter]:
        """The dead letters these documents already are, by `_id` as canonical Extended JSON."""
        return self._dead.find([outcome.id for outcome in outcomes])

    def advance(
        self, token: str, state: State, reached: Reached, decision: Decision, letters: Sequence[DeadLetter]
    ) -> None:
        """Record one batch that Redis has taken: what was handled, put off, refused, and how far it is."""
        step = Step()
        self._remember(step, state, decision, reached.window)
        self._defer(step, state, decision)
        self._bury(step, state, decision, letters)
        fed = {request.queue for request in decision.requests}
        step.each("queues", "SADD", sorted(fed - state.queues))
        step.add("checkpoint", "HSET", *_scan_fields(reached.scan), *_position_fields(reached.position))
        self._commit(token, reached.position, "", step)
        state.queues |= fed

    def finish(self, token: str, reached: Reached, forget: int, report: Report) -> None:
        """End the cycle: the scan is done and the watermark published.

        What is dated before `forget` (milliseconds) is never read again, so it need not be remembered.
        """
        scan, position = reached.scan, reached.position
        step = Step()
        step.add("seen", "ZREMRANGEBYSCORE", "-inf", f"({forget}")
        self._record(step, report, scan.clocks.mongo)
        step.add("published", "DEL")
        step.add("published", "HSET", *_published_fields(report))
        step.add("published", "EXPIRE", self._ttl)
        step.add("checkpoint", "HDEL", *_SCAN_FIELDS)
        step.add("checkpoint", "HSET", *_clock_fields(scan.clocks), *_position_fields(position))
        self._commit(token, position, str(forget), step)

    def end(self, token: str, scan: Scan, report: Report) -> None:
        """End a backfill: its scan is done, and a cycle has caught up with what changed meanwhile."""
        step = Step()
        self._record(step, report, scan.clocks.mongo)
        step.add("checkpoint", "HDEL", *_SCAN_FIELDS)
        self._commit(token, None, "", step)

    def record(self, report: Report, began: int) -> None:
        """Keep the report of a run that did not finish; `began` in milliseconds since the epoch."""
        own = self._own.history
        self._wire.exchange([("LPUSH", own, _entry(report, began)), ("LTRIM", own, 0, HISTORY_CAP - 1)])

    def _record(self, step: Step, report: Report, began: int) -> None:
        step.add("history", "LPUSH", _entry(report, began))
        step.add("history", "LTRIM", 0, HISTORY_CAP - 1)

    def _remember(self, step: Step, state: State, decision: Decision, window: int) -> None:
        """Versions that the next scan reads again, and who claims their keys. Too many: forget all.

        Both are forgotten together. A version that is not remembered is applied again, after every
        older one; a remembered version without its claims could be displaced by an older one.
        """
        recent, claims = decision.handled_since(window), decision.claims_since(window)
        if state.overflowed or state.seen + len(recent) > SEEN_CAP:
            for key in ("seen", "claims", "claimants"):
                step.add(key, "DEL")
            state.overflowed, state.seen, state.claims = True, 0, 0
            return
        step.each("seen", "ZADD", _flat((o.ms, o.version) for o in recent))
        step.each("claims", "ZADD", _flat((o.ms, key) for key, o in claims.items()))
        step.each("claimants", "HSET", _flat((key, o.text) for key, o in claims.items()))
        state.seen += len(recent)
        state.claims += len(claims)

    def _defer(self, step: Step, state: State, decision: Decision) -> None:
        """Put off what waits for a lock, and take off what waits no longer."""
        now = moment_text(state.now)
        for outcome in decision.deferred:
            key, lock = outcome.id, outcome.lock or ""
            since = state.deferred[key].since if key in state.deferred else now
            state.deferred[key] = Deferral(lock, since, outcome.position)
            step.add("deferred", "HSET", key, state.deferred[key].text())
        done = (o.id for o in (*decision.applied, *decision.rejected)) if state.deferred else ()
        over = [key for key in (*done, *decision.gone) if state.deferred.pop(key, None)]
        step.each("deferred", "HDEL", over)

    def _bury(self, step: Step, state: State, decision: Decision, letters: Sequence[DeadLetter]) -> None:
        """Keep the new dead letters, and clear those whose documents were applied."""
        if state.dead_letters:
            applied = [outcome.id for outcome in decision.applied]
            step.each("dead_letters", "HDEL", [*applied, *decision.gone])
        room = max(0, DEAD_LETTER_CAP - state.dead_letters)
        kept = [x for x in letters if x.attempts > 1] + [x for x in letters if x.attempts == 1][:room]
        step.each("dead_letters", "HSET", _flat((letter.id, letter.text()) for letter in kept))
        state.dead_letters += sum(letter.attempts == 1 for letter in kept)
        if len(kept) < len(letters):
            step.add("checkpoint", "HINCRBY", "dead_letters_beyond", len(letters) - len(kept))

    def _commit(self, token: str, position: Position | None, forget: str, step: Step) -> None:
        keys = [getattr(self._own, name) for name in _KEYS]
        ms = "" if position is None or position.ms is None else str(position.ms)
        self._steps += 1
        command = SCRIPTS["commit"].call(keys, token, self._steps, ms, forget, *step.arguments)
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


def _clock_fields(clocks: Clocks) -> list[str | int]:
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
    return json.dumps({"began": moment_text(began)} | report.as_dict(), ensure_ascii=False)


def _flat(pairs: Iterable[tuple[Any, Any]]) -> list[str | int]:
    return [item for pair in pairs for item in pair]


def _mapping(reply: Sequence[str]) -> dict[str, str]:
    """A hash as RESP2 sends it: fields and values in turn."""
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


def _clocks(kept: Mapping[str, str], prefix: str) -> Clocks:
    return Clocks(int(kept[f"{prefix}mongo_clock"]), int(kept[f"{prefix}redis_clock"]))


def _from_published(published: Mapping[str, str]) -> Checkpoint | None:
    """A checkpoint from `etl:last_sync` alone, as another tool or a lost checkpoint leaves it."""
    try:
        moment = DatetimeMS(datetime.fromisoformat(published["last_timestamp"]))
        position = Position(moment, id_from_readable(published["last_id"]))
    except (KeyError, ValueError):
        return None
    return Checkpoint(position, Clocks(int(moment), int(moment)))
