"""A small world around the ETL: documents, writers, locks, clocks and failures, and what must be true of it.

`World` changes MongoDB and runs cycles; beside that it remembers every version of every document, from
which it says what Redis must hold. What a cycle could never have promised it does not ask for:

- A version becomes visible while the server's clock is at most the overlap past its date. `SLACK` of that
  is left for what two clocks that are read one after the other differ by.
- MongoDB's clock is not set back and forward again between two cycles: nobody could see that it was.
- Of one document no two versions bear the same date, for the pair is what a version is.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, NamedTuple

import redis

from etl import interfaces as ports
from etl.cache.keys import companions
from etl.checkpoint.lease import Lease, LeaseKeys
from etl.errors import CycleFailed, EtlError, Transient
from etl.model.report import Report
from etl.sync.cycle import Cycle, Rules
from etl.sync.planner import Limits
from schemas.documents import project
from schemas.families import GENERATION_LOCK, GENERATION_QUEUE
from schemas.ids import id_text
from schemas.operations import Enqueue, Projection, Put, Reject
from schemas.position import Position, position_from_text, position_of
from tests.support.slots import Slot, bulk
from tests.support.twins import (
    FIELD,
    NAME,
    Clocks,
    Insistent,
    Killed,
    MeddledSource,
    MeddledWire,
    Meddler,
    SourceTwin,
    assemble,
    fake_documents,
    fake_redis,
)

OVERLAP: Final = 20_000
SLACK: Final = 1_000
LATEST: Final = OVERLAP - SLACK
"""How far behind the server's clock a version may become visible, in milliseconds."""

STEP: Final = 10_000
"""Clocks are set by multiples of this: far more than the jitter that a cycle puts down to chance."""

# Redis is ahead by a little, as clocks are.
_BEGIN = 1_750_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RULES = Rules(NAME, Limits(OVERLAP, 10_800_000, "full"), page_size=3)
_OWN = companions(NAME)
_LEASE = LeaseKeys(_OWN.lease, _OWN.fence)

Value = dict[str, str] | list[str] | None


class Event(NamedTuple):
    """What happens before or after the n-th call of a cycle to a server: a method of `World`."""

    call: int
    after: bool
    what: str
    how: tuple[Any, ...] = ()


@dataclass(eq=False)
class Version:
    """One version of a document, and what it asks for."""

    slot: Slot
    document: dict[str, Any]
    position: Position
    projection: Projection | Reject
    must_be_queued: bool = False

    @property
    def claims(self) -> dict[str, Value]:
        """What it says of each key; None for one that is not to be."""
        entries = () if isinstance(self.projection, Reject) else self.projection.entries
        return {e.key: e.read if isinstance(e, Put) else None for e in entries if not isinstance(e, Enqueue)}

    @property
    def request(self) -> tuple[str, str] | None:
        """The queue and the item it asks for."""
        entries = () if isinstance(self.projection, Reject) else self.projection.entries
        return next(((e.key, e.item) for e in entries if isinstance(e, Enqueue)), None)

    def order(self) -> Any:
        """By which the newest is told."""
        return self.position.order()

    @property
    def lock(self) -> str | None:
        """The lock it waits for."""
        return None if isinstance(self.projection, Reject) else self.projection.lock


def _plain(value: Mapping[str, str] | Sequence[str]) -> Value:
    return dict(value) if isinstance(value, Mapping) else list(value)


@dataclass
class World:
    """Documents and Redis, real or not, and the model of what they hold."""

    documents: Any
    source: ports.Source
    client: redis.Redis
    pool: redis.ConnectionPool
    clocks: Clocks = field(default_factory=lambda: Clocks(_BEGIN, _BEGIN + 3_000))
    forgetful: bool = False
    """Whether the cap on what is remembered is so low that a second cycle may apply documents again."""
    current: dict[int, Version] = field(default_factory=dict)
    """The version that MongoDB holds, by number of the slot."""
    past: list[Version] = field(default_factory=list)
    """Versions that MongoDB held since Redis was last flushed."""
    uncommitted: dict[int, Version] = field(default_factory=dict)
    locked: set[str] = field(default_factory=set)
    popped: list[tuple[str, str]] = field(default_factory=list)
    position: Position | None = None
    stepped_back: bool = False
    meddler: Meddler = field(default_factory=Meddler)
    _dates: set[tuple[int, int]] = field(default_factory=set)
    _written: int = 0

    def __post_init__(self) -> None:
        self._wire = self._connect()

    def close(self) -> None:
        """Give the connections back."""
        self._wire.close()

    # What others do

    def write(self, slot: Slot, content: str, jitter: int = 0) -> None:
        """A writer whose clock is `jitter` milliseconds off writes a version."""
        self.write_late(slot, content, jitter)
        self.commit(slot.number)

    def write_late(self, slot: Slot, content: str, jitter: int = 0) -> None:
        """The same in a transaction that is committed later, but in time."""
        self.commit(slot.number)
        self._written += 1
        ms = self.clocks.mongo + max(jitter, -LATEST)
        while (slot.number, ms) in self._dates:
            ms += 1
        self._dates.add((slot.number, ms))
        document = slot.document(content, self._written) | {FIELD: _EPOCH + timedelta(milliseconds=ms)}
        position = position_of(document[FIELD], slot.id)
        version = Version(slot, document, position, project(document, "generacion"))
        self.uncommitted[slot.number] = version

    def write_bulk(self, count: int) -> None:
        """Many documents on one timestamp."""
        for number in range(count):
            self.write(bulk(number), "put")

    def write_dateless(self, moment: Any) -> None:
        """A document that no delta can reach."""
        document = {"_id": "dateless", "tipo": "integracion_api", "provider_name": "dateless", "status": "a"}
        self.documents.replace_one({"_id": "dateless"}, document | {FIELD: moment}, upsert=True)

    def commit(self, number: int) -> None:
        """The version under way for this slot, if any, becomes visible."""
        version = self.uncommitted.pop(number, None)
        if version is None:
            return
        if (before := self.current.get(number)) is not None:
            self.past.append(before)
        self.current[number] = version
        self.documents.replace_one({"_id": version.slot.id}, version.document, upsert=True)

    def advance(self, ms: int) -> None:
        """Time passes."""
        self._commit_due(self.clocks.mongo + ms)
        self.clocks.advance(ms)

    def step(self, ms: int) -> None:
        """MongoDB's clock is set; not forward once it was set back and no cycle has seen it."""
        if ms > 0 and self.stepped_back:
            return
        self.stepped_back = self.stepped_back or ms < 0
        self._commit_due(self.clocks.mongo + ms)
        self.clocks.step(ms)

    def lock(self, campaign: str) -> None:
        """Someone generates content for the campaign."""
        self.locked.add(GENERATION_LOCK.key(campana_id=campaign))
        self.client.set(GENERATION_LOCK.key(campana_id=campaign), "1")

    def unlock(self, campaign: str) -> None:
        """The generation is done."""
        self.locked.discard(GENERATION_LOCK.key(campana_id=campaign))
        self.client.delete(GENERATION_LOCK.key(campana_id=campaign))

    def pop(self) -> None:
        """The generator takes all that is queued."""
        self.popped += self._queued()
        self.client.delete(*_QUEUES)

    def flush(self) -> None:
        """Redis loses everything."""
        self.client.flushdb()
        self.locked, self.popped, self.past, self.position = set(), [], [], None
        for version in self.current.values():
            version.must_be_queued = False

    # Failures

    def kill(self) -> None:
        """The process dies."""
        raise Killed

    def lose(self) -> None:
        """The connection is lost: before the call, or with its answer."""
        raise Transient("lost")

    def fail(self) -> None:
        """The call fails for good."""
        raise CycleFailed("failed")

    # Cycles

    def cycle(self, meddling: Iterable[Event] = ()) -> Report | None:
        """One cycle of this process, with what happens meanwhile: None when it ended early."""
        steps = [(e.call, e.after, partial(getattr(self, e.what), *e.how)) for e in meddling]
        self.meddler.plan(steps)
        try:
            return self._run(self._wire, self.meddler)
        except Killed:
            self._wire = self._connect()
        except EtlError:
            if not steps:
                raise
        finally:
            self.meddler.plan(())
            if steps:
                self.client.delete(_OWN.lease)  # where nobody could give it back, it runs out
            self.check_safety()
        return None

    def other_holder(self) -> None:
        """The lease of this process is over, and another one runs a cycle."""
        self.client.delete(_OWN.lease)
        undisturbed = Meddler()
        with closing(MeddledWire(self.pool, self.clocks, undisturbed)) as wire:
            self._run(wire, undisturbed)

    def _run(self, wire: MeddledWire, meddler: Meddler) -> Report:
        lease = Lease(lambda: MeddledWire(self.pool, self.clocks, meddler), _LEASE, 30, Insistent())
        stages = assemble(MeddledSource(self.source, self.clocks, meddler), wire)
        with lease.hold() as token:
            return Cycle(stages, _RULES, token, Report(NAME)).run()

    def _connect(self) -> MeddledWire:
        return MeddledWire(self.pool, self.clocks, self.meddler)

    # What must be true

    def settle(self) -> None:
        """A cycle that nobody disturbs applies all there is, and the next one has nothing to do."""
        report = self.cycle()
        assert report is not None
        self.stepped_back = False
        self.check_truth(report)
        before = self.contents(), sorted(self._queued())
        second = self.cycle()
        assert second is not None
        assert second.mode == "delta"
        assert (second.dead_lettered, second.enqueued) == (0, 0) or self.forgetful
        assert second.records_processed == 0 or self.forgetful
        assert (self.contents(), sorted(self._queued())) == before

    def check_truth(self, report: Report) -> None:
        """Redis holds what MongoDB says, but for campaigns under a lock."""
        for version in self.current.values():
            version.must_be_queued = version.must_be_queued or version.lock not in self.locked
        self.check_safety()
        contents = self.contents()
        waiting = {key for v in self._versions() if v.lock in self.locked for key in v.claims}
        for key in {key for v in self._versions() for key in v.claims} - waiting:
            assert contents.get(key) in self._allowed(key), key
        counted = [self._queued().count(request) + self.popped.count(request) for request in self._requests()]
        least = [self._asked(request, must=True) for request in self._requests()]
        assert all(n >= m for n, m in zip(counted, least, strict=True)), (counted, least)
        self._check_dead_letters()
        assert report.unreachable == self.documents.count_documents({"_id": "dateless"})
        assert report.deferred == self.client.hlen(_OWN.deferred)
        if not self.locked:
            assert report.deferred == 0

    def check_safety(self) -> None:
        """What holds at any moment: no request is there twice, and the checkpoint never goes back."""
        for request in self._requests():
            count = self._queued().count(request) + self.popped.count(request)
            assert count <= self._asked(request), f"{request} is queued {count} times"
        text: Any = self.client.hget(_OWN.checkpoint, "position")
        position = position_from_text(text) if text else None
        if self.position is not None:
            assert position is not None
            assert position.order() >= self.position.order(), "the checkpoint went back"
        self.position = position

    def _check_dead_letters(self) -> None:
        dead: Any = set(self.client.hkeys(_OWN.dead_letters))
        invalid = {id_text(v.slot.id) for v in self.current.values() if isinstance(v.projection, Reject)}
        mended = {id_text(v.slot.id) for v in self.current.values() if v.lock in self.locked}
        assert invalid <= dead
        assert dead <= invalid | mended

    def _allowed(self, key: str) -> list[Value]:
        """What may be under a key: what its newest claim says, and in two cases something else.

        Where the newest claim there ever was is of a document that has since become something that
        says nothing of the key (it is invalid, or asks for messages), that claim may stand instead.
        Where a document was dated ahead and then written again with an earlier date, what it held
        back before is not read again: any of the claims from the earlier date on may stand.
        """
        claims = sorted((v for v in self.current.values() if key in v.claims), key=Version.order)
        past = [v for v in self.past if key in v.claims and not self._has_moved(v, key)]
        newest = [claims[-1].order()] if claims else []
        slots = {v.slot.number for v in claims}
        standing = [v for v in past if v.slot.number not in slots and [v.order()] > newest]
        returned = (v for v in claims if any(p.slot == v.slot and p.order() > v.order() for p in past))
        earliest = next(returned, claims[-1] if claims else None)
        standing += [v for v in claims if earliest and v.order() >= earliest.order()]
        return [v.claims[key] for v in standing] + ([] if claims else [None])

    def _has_moved(self, version: Version, key: str) -> bool:
        """Whether its document claims other keys by now."""
        claims = self.current[version.slot.number].claims
        return bool(claims) and key not in claims

    def contents(self) -> dict[str, Value]:
        """Every key of the contract that documents fill, and what it holds."""
        keys: Any = self.client.keys("*")
        kept = [key for key in keys if key.startswith(("ai:", "config:"))]
        return {key: self._read(key) for key in sorted(kept)}

    def _read(self, key: str) -> Value:
        value: Any = self.client.hgetall(key) if _is_hash(key) else self.client.lrange(key, 0, -1)
        return _plain(value)

    def _queued(self) -> list[tuple[str, str]]:
        items: dict[str, Any] = {queue: self.client.lrange(queue, 0, -1) for queue in _QUEUES}
        return [(queue, item) for queue, queued in items.items() for item in queued]

    def _versions(self) -> list[Version]:
        return [*self.current.values(), *self.past]

    def _requests(self) -> set[tuple[str, str]]:
        return {v.request for v in self._versions() if v.request is not None} | set(self._queued())

    def _asked(self, request: tuple[str, str], *, must: bool = False) -> int:
        """How many versions ask for it (or must have been given it)."""
        return sum(v.request == request and (v.must_be_queued or not must) for v in self._versions())

    def _commit_due(self, clock: int) -> None:
        for number, version in list(self.uncommitted.items()):
            if (version.position.ms or 0) + LATEST < clock:
                self.commit(number)


_QUEUES = [GENERATION_QUEUE.key(priority=priority) for priority in ("alta", "media", "baja")]


def _is_hash(key: str) -> bool:
    return not key.startswith("ai:campaign_messages:")


def fake_world(*, forgetful: bool = False) -> World:
    """An empty world without servers."""
    documents, client = fake_documents(), fake_redis()
    return World(documents, SourceTwin(documents), client, client.connection_pool, forgetful=forgetful)
