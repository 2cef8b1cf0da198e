"""The stages without servers: documents in mongomock, Redis in fakeredis, and a way to step in between.

What the twins promise is what the real ones do: `tests/contract` holds both to the same facts.
"""

import itertools
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar
from unittest.mock import patch

import bson
import fakeredis
import mongomock
import redis
from fakeredis import _helpers
from fakeredis._socket import _base
from fakeredis.commands_mixins import server_mixin

from etl.cache.client import Command, Wire
from etl.cache.keys import StateKeys, state_keys
from etl.cache.scripts import SCRIPTS
from etl.cache.writer import CacheWriter
from etl.checkpoint.checkpoint import CheckpointStore
from etl.errors import TransientError
from etl.interfaces import Reader, Stages
from etl.model.events import Events
from etl.model.index import Index
from etl.model.page import Page
from etl.model.result import TransformResult
from etl.mongo.queries import matching
from etl.mongo.reader import UNREACHABLE_CAP
from etl.retry import Retry
from etl.sync.processor import Processor
from etl.transform.transform import Transform
from schemas.codec import DECODING, RawValue
from schemas.documents import FAMILIES
from schemas.ids import id_from_text, id_text
from schemas.position import Position, position_in

T = TypeVar("T")

NAME = "promptContent"
FIELD = "updated_at"
OWN = state_keys(NAME)

_MEMORY_SECONDS = 1_440
_PAGE_SIZE = 3
_NONCES = itertools.count()


@dataclass
class Clocks:
    """The clocks of both servers, in milliseconds since the epoch: they move only when told to.

    But for a microsecond each time that Redis looks at its own: two of its moments are never the same.
    """

    mongo: int
    redis: int
    _looks: int = 0

    def advance(self, ms: int) -> None:
        """Let time pass."""
        self.mongo += ms
        self.redis += ms

    def step(self, ms: int) -> None:
        """Set MongoDB's clock, and the writers' with it, forward or (negative) back."""
        self.mongo += ms

    def time(self) -> float:
        """The clock of Redis as `time.time` would have it, in seconds."""
        self._looks += 1
        return (self.redis * 1000 + self._looks) / 1_000_000


@contextmanager
def fake_redis_told_by(clocks: Clocks) -> Iterator[None]:
    """Every fake Redis goes by these clocks: its TIME, also within scripts, and when keys expire."""
    with ExitStack() as stack:
        for module in (_base, _helpers, server_mixin):
            stack.enter_context(patch.object(module, "time", clocks))
        yield


class Killed(BaseException):
    """The process is gone: it does nothing more, not even what `finally` asks for."""


class Meddler:
    """Lets a test step in before or after the n-th call to a server; what it does may raise."""

    def __init__(self) -> None:
        self.plan(())

    def plan(self, steps: Iterable[tuple[int, bool, Callable[[], None]]]) -> None:
        """Count from zero again, and do each of these at its call: before it, or after where that is true."""
        self._steps = {(number, after): step for number, after, step in steps}
        self._calls = 0
        self._dead = False

    def around(self, call: Callable[[], T]) -> T:
        """The call, with whatever is planned for its number; raising after it loses the answer."""
        number, self._calls = self._calls, self._calls + 1
        self._step(number, after=False)
        result = call()
        self._step(number, after=True)
        return result

    def _step(self, number: int, *, after: bool) -> None:
        step = self._steps.pop((number, after), _nothing)
        try:
            (kill if self._dead else step)()
        except Killed:
            self._dead = True
            raise


def kill() -> None:
    """The process dies here."""
    raise Killed


def _nothing() -> None:
    pass


class ReaderTwin:
    """`etl.mongo.reader.MongoReader` over documents in mongomock, and `raw` ones that no client would write."""

    def __init__(self, documents: Any) -> None:
        self._documents = documents
        self.raw: list[bytes] = []

    def clock(self) -> int:
        """The clock of this machine; see `MeddledReader` for one that a test moves."""
        return round(time.time() * 1000)

    index = Index("updated_at_1__id_1")

    def prepare(self) -> bool:
        """There is always an index."""
        return True

    def page(self, after: Position, end: Position, limit: int) -> Page:
        """The next documents after one position and before another."""
        found = [raw for raw in self._all() if after.order() < _position(raw).order() < end.order()]
        documents = found[:limit]
        return Page(documents, _position(documents[-1]) if documents else None, len(found) >= limit)

    def fetch(self, ids: Sequence[Any]) -> list[bytes]:
        """The documents with these `_id`s that exist, in order of position."""
        wanted = [Position(None, document_id).order() for document_id in ids]
        return [raw for raw in self._all() if Position(None, _position(raw).id).order() in wanted]

    def of_kind(self, criteria: Mapping[str, Sequence[Any]], limit: int) -> Iterator[list[bytes]]:
        """All documents that match, the newest first, `limit` at a time."""
        found = self._sorted(map(_encoded, self._documents.find(matching(criteria, {}))))[::-1]
        for start in range(0, len(found) + 1, limit):
            yield found[start : start + limit]

    def cuts(self, count: int) -> list[Position]:
        """Positions that cut the collection into about this many ranges."""
        every = [_position(raw) for raw in self._all() if _faithful(raw)]
        return every[:: max(1, len(every) // count)]

    def count(self) -> int:
        """How many documents there are."""
        return len(self._all())

    def identity(self) -> str | None:
        """That of a collection that is never dropped."""
        return "a collection"

    def sample(self, count: int) -> list[str]:
        """The `_id`s of the first of them."""
        return [id_text(_position(raw).id) for raw in self._all()[:count]]

    def unreachable(self) -> int:
        """How many documents have no date to be reached by."""
        dateless = [raw for raw in self._all() if _position(raw).ms is None]
        return min(len(dateless), UNREACHABLE_CAP)

    def _all(self) -> list[bytes]:
        return self._sorted([*map(_encoded, self._documents.find()), *self.raw])

    def _sorted(self, documents: Any) -> list[bytes]:
        return sorted(documents, key=lambda raw: _position(raw).order())


def _encoded(document: Mapping[str, Any]) -> bytes:
    return bson.encode(document, codec_options=DECODING)


def _position(raw: bytes) -> Position:
    return position_in(raw, FIELD)


def _faithful(raw: bytes) -> bool:
    """Whether the position of a document can be named: it holds nothing that is of bytes only."""
    return not any(isinstance(part, RawValue) for part in _position(raw))


class MeddledReader:
    """Any reader, with a clock in the test's hands and a meddler around each call."""

    def __init__(self, reader: Reader, clocks: Clocks, meddler: Meddler) -> None:
        self._reader = reader
        self._clocks = clocks
        self._around = meddler.around

    @property
    def index(self) -> Index:
        """As the reader has it."""
        return self._reader.index

    def prepare(self) -> bool:
        """As the reader does."""
        return self._around(self._reader.prepare)

    def clock(self) -> int:
        """What the test says it is."""
        return self._around(lambda: self._clocks.mongo)

    def page(self, after: Position, end: Position, limit: int) -> Page:
        """As the reader does."""
        return self._around(lambda: self._reader.page(after, end, limit))

    def fetch(self, ids: Sequence[Any]) -> list[bytes]:
        """As the reader does."""
        return self._around(lambda: self._reader.fetch(ids))

    def of_kind(self, criteria: Mapping[str, Sequence[Any]], limit: int) -> Iterator[list[bytes]]:
        """As the reader does, with the meddler before each page."""
        for documents in self._reader.of_kind(criteria, limit):
            yield self._around(lambda: documents)  # noqa: B023 (called at once)

    def cuts(self, count: int) -> list[Position]:
        """As the reader does."""
        return self._around(lambda: self._reader.cuts(count))

    def count(self) -> int:
        """As the reader does."""
        return self._around(self._reader.count)

    def identity(self) -> str | None:
        """As the reader does."""
        return self._around(self._reader.identity)

    def sample(self, count: int) -> list[str]:
        """As the reader does."""
        return self._around(lambda: self._reader.sample(count))

    def unreachable(self) -> int:
        """As the reader does."""
        return self._around(self._reader.unreachable)


class MeddledWire(Wire):
    """Any wire, with a meddler around each exchange."""

    def __init__(self, wire: Wire, meddler: Meddler) -> None:
        self._wire = wire
        self._around = meddler.around

    @property
    def address(self) -> str:
        """As the wire has it."""
        return self._wire.address

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """As the wire does."""
        return self._around(lambda: self._wire.exchange(commands))

    def now(self) -> int:
        """As the wire does."""
        return self._around(self._wire.now)

    def primaries(self) -> frozenset[str]:
        """As the wire does, undisturbed."""
        return self._wire.primaries()

    def groups(self, keys: Sequence[str], size: int) -> Iterator[Sequence[int]]:
        """As the wire does."""
        return self._wire.groups(keys, size)


class DatedWire(MeddledWire):
    """The same to a real Redis, whose clock a test cannot move: the checkpoint is told another one.

    The scripts that write compare moments of the server's own clock with each other: those stay as they are.
    """

    def __init__(self, wire: Wire, meddler: Meddler, clocks: Clocks) -> None:
        super().__init__(wire, meddler)
        self._clocks = clocks

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """As the wire does, but for TIME among other commands."""
        replies = super().exchange(commands)
        if len(commands) > 1:
            now = [str(self._clocks.redis // 1000), str(self._clocks.redis % 1000 * 1000)]
            replies = [
                now if one == ("TIME",) else reply for one, reply in zip(commands, replies, strict=True)
            ]
        return replies


class StreamTwin:
    """A change stream over a list of changes; a follower that has seen them all stops."""

    def __init__(self, changes: Sequence[str], meddler: Meddler, stop: threading.Event) -> None:
        self._changes = changes
        self._meddler = meddler
        self._stop = stop
        self._next = 0

    def open(self, token: Mapping[str, Any] | None) -> Events:
        """Begin after a token, or with what happens from now on."""
        self._next = len(self._changes) if token is None else token["next"]
        return self._meddler.around(self._read)

    def next(self, _: float) -> Events:
        """The changes that have come."""
        events = self._meddler.around(self._read)
        if not events.ids:
            self._stop.set()
        return events

    def close(self) -> None:
        """There is nothing to close."""

    def _read(self) -> Events:
        some = self._changes[self._next : self._next + _PAGE_SIZE]
        self._next += len(some)
        operations = {"update": len(some)} if some else {}
        return Events([*dict.fromkeys(some)], operations, {"next": self._next}, 0.0 if some else None)


class Insistent(Retry):
    """Tries again at once, a few times: a test has no time to wait."""

    def __init__(self, tries: int = 4) -> None:
        super().__init__(0, threading.Event())
        self._tries = tries

    def __call__(self, step: Callable[[], T]) -> T:
        """The result of `step`, as `Retry` gives it."""
        for _ in range(self._tries - 1):
            try:
                return step()
            except TransientError:
                pass
        return step()


def fake_documents() -> Any:
    """An empty collection that speaks pymongo's language."""
    return mongomock.MongoClient()["database"][NAME]


def fake_redis() -> redis.Redis:
    """An empty Redis in memory; its pool is what a `Wire` takes."""
    client: redis.Redis = fakeredis.FakeRedis(decode_responses=True, protocol=2)
    return client


def assemble(
    reader: Reader,
    wire: Wire,
    *,
    keys: StateKeys = OWN,
    ttls: Mapping[str, int | None] | None = None,
    retry: Retry | None = None,
) -> Stages:
    """The four stages of the collection `NAME`, as `etl.container` puts them together."""
    retry = retry or Insistent()
    transform, prefix = Transform(NAME, "generacion", FIELD, 2**20), f"{NAME} "

    def reread(names: Collection[str]) -> list[TransformResult]:
        ids = [id_from_text(name.removeprefix(prefix)) for name in names if name.startswith(prefix)]
        return transform(reader.fetch(ids))

    processor = Processor(
        writer=CacheWriter(wire, ttls or {name: f.ttl for name, f in FAMILIES.items()}, _MEMORY_SECONDS),
        source=NAME,
        reread=reread,
        knows=lambda name: name.startswith(prefix),
        retry=retry,
    )
    return Stages(
        reader=reader,
        transform=transform,
        processor=processor,
        store=CheckpointStore(wire, keys, 1320, retry),
        start_workers=lambda _: nullcontext(None),
        retry=retry,
        stop=threading.Event(),
        page_size=_PAGE_SIZE,
        source=f"database.{NAME} by {FIELD}",
    )


def take_lease(client: redis.Redis, keys: StateKeys = OWN) -> str:
    """A new fencing token, as if the lease of the holder before were over."""
    client.delete(keys.lease)
    holder = f"host:1:{next(_NONCES):012x}"
    answer: Any = client.eval(SCRIPTS["acquire"].source, 2, keys.lease, keys.fence, holder, "30000")
    return str(answer[1])
