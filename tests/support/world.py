"""A small world around the ETL: documents, writers, locks, clocks and failures, with its invariants.

`World` changes MongoDB and runs cycles and workers. It records every version of every document, from
which it computes the expected state of Redis. It respects the limits of what a cycle guarantees:

- A version becomes visible while the clock of the server is at most the overlap past its date. `SLACK` of that
  is reserved for the difference of two clocks that are read one after the other.
- The clock of MongoDB is not set back and forward again between two cycles, which cannot be detected.
- No two versions of a document have the same date: date and `_id` identify a version.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, Final, NamedTuple

import redis

from etl.cache.client import Wire
from etl.cache.keys import of_follower
from etl.cache.writer import DEADLINE_SECONDS
from etl.checkpoint.checkpoint import CheckpointStore
from etl.checkpoint.follow_store import FollowStore
from etl.checkpoint.lease import Lease, LeaseKeys
from etl.errors import CycleFailed, EtlError, TransientError
from etl.interfaces import Reader, Reread, Stages
from etl.model.report import RefreshReport, Report, no_progress
from etl.model.result import TransformResult
from etl.sync.cycle import run_cycle
from etl.sync.follow import Follower
from etl.sync.planner import Limits
from etl.sync.refresh import refresh
from etl.transform.transform import Transform
from schemas.documents import project
from schemas.families import GENERATION_LOCK
from schemas.ids import id_from_text, id_text
from schemas.position import FIRST, LAST, position_of
from tests.support.assembly import FIELD, NAME, OWN, ImmediateRetry, assemble, fake_documents, fake_redis
from tests.support.call_hooks import CallHooks, Killed
from tests.support.clocks import Clocks, fake_redis_clock
from tests.support.model import QUEUES, TTLS, Model
from tests.support.readers import FakeReader, HookedReader
from tests.support.slots import Slot, bulk
from tests.support.stream import FakeChangeStream
from tests.support.versions import Version, at_ms
from tests.support.wires import ClockedWire, HookedWire

OVERLAP: Final = 20_000
SLACK: Final = 1_000
LATEST: Final = OVERLAP - SLACK
"""The greatest age at which a version may become visible, in milliseconds."""

STEP: Final = 10_000
"""Clocks are set by multiples of this, far more than the jitter that a cycle ignores."""

DEADLINE: Final = round(DEADLINE_SECONDS * 1000)

# The clock of Redis is a little ahead.
_BEGIN = 1_750_000_000_000
_LIMITS = Limits(OVERLAP + DEADLINE, 1_500_000, "full")


class Event(NamedTuple):
    """A method of `World` that is called before or after the n-th call of a run to a server."""

    call: int
    after: bool
    what: str
    how: tuple[Any, ...] = ()


@dataclass(kw_only=True)
class World(Model):
    """Documents and Redis, real or fake, and the events on them."""

    reader: Reader
    connect: Callable[[CallHooks], Wire]
    uncommitted: dict[int, Version] = field(default_factory=dict)
    pages: list[tuple[int, list[TransformResult]]] = field(default_factory=list)
    """Pages that other workers have read and not written yet, each with the clock of Redis before the read."""
    stepped_back: bool = False
    changes: list[str] = field(default_factory=list)
    """The `_id`s of written and deleted documents, in the order of the oplog."""
    hooks: CallHooks = field(default_factory=CallHooks)
    closing: ExitStack = field(default_factory=ExitStack)
    """Resources that are closed with the world."""
    _dates: set[tuple[int, int]] = field(default_factory=set)
    _changes: Iterator[int] = field(default_factory=lambda: count(1))
    _written: int = 0
    _began: int | None = None
    """The number of the change after which the current run began."""

    # Events by others

    def write(self, slot: Slot, content: str, jitter: int = 0) -> None:
        """A writer whose clock is wrong by `jitter` milliseconds writes a version."""
        self.write_late(slot, content, jitter)
        self.commit(slot.number)

    def write_late(self, slot: Slot, content: str, jitter: int = 0) -> None:
        """The same in a transaction that is committed later, but within the overlap."""
        self.commit(slot.number)
        self._written += 1
        ms = self.clocks.mongo + max(jitter, -LATEST)
        while (slot.number, ms) in self._dates:
            ms += 1
        self._dates.add((slot.number, ms))
        document = slot.document(content, self._written) | {FIELD: at_ms(ms)}
        position = position_of(document[FIELD], slot.id)
        version = Version(slot, document, position, project(document, "generacion"))
        self.uncommitted[slot.number] = version

    def write_bulk(self, number: int) -> None:
        """Many documents on one timestamp."""
        for one in range(number):
            self.write(bulk(one), "put")

    def write_dateless(self, moment: Any) -> None:
        """A document that no delta can reach."""
        document = {"_id": "dateless", "tipo": "integracion_api", "provider_name": "dateless", "status": "a"}
        self.documents.replace_one({"_id": "dateless"}, document | {FIELD: moment}, upsert=True)

    def commit(self, number: int) -> None:
        """The uncommitted version of this slot, if any, becomes visible."""
        version = self.uncommitted.pop(number, None)
        if version is None:
            return
        version.committed, version.visible_at = next(self._changes), self.clocks.redis
        self._replace(number, version.committed)
        self.current[number] = version
        self.changes.append(id_text(version.slot.id))
        self.documents.replace_one({"_id": version.slot.id}, version.document, upsert=True)

    def delete(self, number: int) -> None:
        """The document of this slot is deleted, which no date shows."""
        self.commit(number)
        if (version := self.current.get(number)) is not None:
            self._replace(number, next(self._changes))
            self.changes.append(id_text(version.slot.id))
            self.documents.delete_one({"_id": version.slot.id})

    def _replace(self, number: int, change: int) -> None:
        if (before := self.current.pop(number, None)) is not None:
            before.replaced = change
            self.past.append(before)

    def advance(self, ms: int) -> None:
        """Time passes."""
        self._commit_due(self.clocks.mongo + ms)
        self.clocks.advance(ms)

    def step(self, ms: int) -> None:
        """The clock of MongoDB is set; not forward after it was set back and before the next cycle."""
        if ms > 0 and self.stepped_back:
            return
        self.stepped_back = self.stepped_back or ms < 0
        self._commit_due(self.clocks.mongo + ms)
        self.clocks.step(ms)

    def lock(self, campaign: str) -> None:
        """A generator takes the lock of the campaign."""
        self.locked.add(GENERATION_LOCK.key(campana_id=campaign))
        self.client.set(GENERATION_LOCK.key(campana_id=campaign), "1")

    def unlock(self, campaign: str) -> None:
        """The generator releases the lock."""
        self.locked.discard(GENERATION_LOCK.key(campana_id=campaign))
        self.client.delete(GENERATION_LOCK.key(campana_id=campaign))

    def pop(self) -> None:
        """The generator pops all requests."""
        self.popped += self.queued()
        self.client.delete(*QUEUES)

    def flush(self) -> None:
        """Redis is flushed: a current run may still write the versions that it has read, but not older ones."""
        self.client.flushdb()
        began = self._began
        self.past = [one for one in self.past if began is not None and one.replaced >= began]
        self.pages.clear()
        self.locked, self.popped, self.position = set(), [], None
        self.settled.clear()
        for version in self._versions():
            version.must_be_queued = False

    # Failures

    def kill(self) -> None:
        """The process is killed."""
        raise Killed

    def lose(self) -> None:
        """The connection is lost before the call, or with its answer."""
        raise TransientError("lost")

    def fail(self) -> None:
        """The call fails permanently."""
        raise CycleFailed("failed")

    # Runs

    def cycle(self, events: Iterable[Event] = ()) -> Report | None:
        """Run a cycle with these events; None if it ended early."""
        steps = [*events]
        report = None
        with self._with_events(steps):
            report = self._cycle(self.hooks)
        if steps:
            self.client.delete(OWN.lease)  # if it could not be released, it expires
        self.check_safety()
        return report

    def other_holder(self) -> None:
        """The lease of this process expires, and another process runs a cycle."""
        self.client.delete(OWN.lease)
        self._cycle(CallHooks())

    def read_page(self, start: int, size: int) -> None:
        """Another worker reads some of the documents, and writes them later."""
        stages = self._stages(CallHooks())
        read_at = stages.processor.now()
        documents = stages.reader.page(FIRST, LAST, 1000).documents[start : start + size]
        self.pages.append((read_at, stages.transform(documents)))

    def deliver(self, events: Iterable[Event] = ()) -> None:
        """A worker writes a page that it may have read long ago, with these events."""
        if not self.pages:
            return
        read_at, results = self.pages.pop(0)
        steps = [*events]
        hooks = self.hooks if steps else CallHooks()
        with self._with_events(steps):
            processor = self._stages(hooks).processor
            processor.process(results, read_at, remember_from=None, skip_done=False)

    def follow(self, number: int) -> None:
        """A follower gets an event for this document."""
        slot = next((one.slot for one in self._versions() if one.slot.number == number), None)
        if slot is not None:
            stages = self._stages(CallHooks())
            read_at, results = stages.processor.read([id_text(slot.id)])
            recent = self.clocks.mongo - _LIMITS.lookback
            stages.processor.process(results, read_at, remember_from=recent, skip_done=False)

    def follow_stream(self, events: Iterable[Event] = ()) -> None:
        """A follower applies the changes since its last token; without events all of them."""
        steps = [*events]
        with self._with_events(steps):
            self._follow_stream(self.hooks if steps else CallHooks())
        if steps:
            self.client.delete(
                OWN.lease, OWN.follow_lease
            )  # where they could not be given back, they run out
            self.check_safety()
            return
        unreachable = self.documents.count_documents({"_id": "dateless"})
        self.check_truth(Report(NAME, unreachable=unreachable, deferred=self.client.hlen(OWN.deferred)))

    def _follow_stream(self, hooks: CallHooks) -> None:
        stages, own, wire = self._stages(hooks), of_follower(OWN), self.connect(hooks)
        Follower(
            stages=stages,
            store=FollowStore(CheckpointStore(wire, own, 1320, stages.retry)),
            stream=FakeChangeStream(self.changes, hooks, stages.stop),
            reread=self.reread(hooks),
            lease=Lease(wire, LeaseKeys(own.lease, own.fence), 30, ImmediateRetry()),
            cycle=lambda: self._cycle(hooks),
            reconcile=lambda: None,
            on_batch=lambda _: None,
        ).follow()

    def reread(self, hooks: CallHooks) -> Reread:
        """The function by which a follower reads documents."""
        reader = HookedReader(self.reader, self.clocks, hooks)
        transform = Transform(NAME, "generacion", FIELD, 2**20)
        return lambda names: transform(
            reader.fetch([id_from_text(name.removeprefix(f"{NAME} ")) for name in names])
        )

    def warm(self, family: str) -> None:
        """A family is refreshed."""
        refresh(self._stages(CallHooks()), "generacion", RefreshReport(family, None))

    @contextmanager
    def _with_events(self, steps: Sequence[Event]) -> Iterator[None]:
        """Let these events happen during a run, which may end early if there are any."""
        began, self._began = self._began, self._began or next(self._changes)
        if not steps:
            try:
                yield
            finally:
                self._began = began
            return
        self.hooks.plan((e.call, e.after, partial(getattr(self, e.what), *e.how)) for e in steps)
        try:
            yield
        except (Killed, EtlError):
            pass
        finally:
            self.hooks.plan(())
            self._began = began

    def _cycle(self, hooks: CallHooks) -> Report:
        stages, report = self._stages(hooks), Report(NAME)
        lease = Lease(self.connect(hooks), LeaseKeys(OWN.lease, OWN.fence), 30, ImmediateRetry())
        with lease.hold() as token:
            run_cycle(stages, _LIMITS, token, report, no_progress)
        return report

    def _stages(self, hooks: CallHooks) -> Stages:
        reader = HookedReader(self.reader, self.clocks, hooks)
        return assemble(reader, self.connect(hooks), ttls=TTLS)

    # Invariants

    def settle(self) -> None:
        """A cycle without events applies everything; then neither the next cycle nor a slow worker changes anything."""
        report = self.cycle()
        assert report is not None
        self.stepped_back = False
        self.check_truth(report)
        before = self.contents(), sorted(self.queued())
        second = self.cycle()
        assert second is not None
        assert second.mode == "delta"
        assert (second.records_processed, second.dead_lettered, second.enqueued) == (0, 0, 0)
        assert (self.contents(), sorted(self.queued())) == before
        self.deliver()
        self.check_truth(second)

    def _commit_due(self, clock: int) -> None:
        for number, version in list(self.uncommitted.items()):
            if (version.position.ms or 0) + LATEST < clock:
                self.commit(number)


def clocks_of_a_world() -> Clocks:
    """Clocks at a fixed date; that of Redis is a little ahead."""
    return Clocks(_BEGIN, _BEGIN + 3_000)


def fake_world() -> World:
    """An empty world without servers; close its `closing` at the end."""
    clocks, documents, client = clocks_of_a_world(), fake_documents(), fake_redis()
    wire = Wire(client.connection_pool)
    world = World(
        documents=documents,
        reader=FakeReader(documents),
        client=client,
        connect=partial(HookedWire, wire),
        clocks=clocks,
    )
    world.closing.enter_context(fake_redis_clock(clocks))
    return world


def real_world(documents: Any, reader: Reader, client: redis.Redis, wire: Wire) -> World:
    """The same on empty servers, where keys expire by the clock of the machine."""
    clocks = clocks_of_a_world()
    connect = partial(ClockedWire, wire, clocks=clocks)
    return World(documents=documents, reader=reader, client=client, connect=connect, clocks=clocks)
