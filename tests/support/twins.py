"""The stages without servers: documents in mongomock, Redis in fakeredis, and a way to step in between.

What the twins promise is what the real ones do: `tests/contract` holds both to the same facts.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import bson
import fakeredis
import mongomock
import redis

from etl import interfaces as ports
from etl.backfill.pipeline import inline
from etl.cache.cache import Cache
from etl.cache.client import SCRIPTS, Wire
from etl.cache.keys import companions
from etl.cache.ownership import Ownership
from etl.cache.resp import Sent
from etl.checkpoint.checkpoint import CheckpointStore
from etl.errors import Transient
from etl.mongo.indexes import Index
from etl.mongo.reader import UNREACHABLE_CAP, Page
from etl.retry import Retry
from etl.transform.transform import Transform
from schemas.codec import DECODING
from schemas.position import Position, position_in
from tests.support.outcomes import TTLS

T = TypeVar("T")

NAME = "promptContent"
FIELD = "updated_at"

_NONCES = itertools.count()
_LONG = 10**9  # seconds; the clocks of a test may jump


@dataclass
class Clocks:
    """The clocks of both servers, in milliseconds since the epoch: they move only when told to."""

    mongo: int
    redis: int

    def advance(self, ms: int) -> None:
        """Let time pass."""
        self.mongo += ms
        self.redis += ms

    def step(self, ms: int) -> None:
        """Set MongoDB's clock, and the writers' with it, forward or (negative) back."""
        self.mongo += ms


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


class SourceTwin:
    """`etl.mongo.reader.Source` over documents in mongomock, and `raw` ones that no client would write."""

    def __init__(self, documents: Any) -> None:
        self._documents = documents
        self.raw: list[bytes] = []

    def clock(self) -> int:
        """The clock of this machine; see `MeddledSource` for one that a test moves."""
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

    def of_kind(self, criteria: Mapping[str, Any], limit: int) -> Iterator[list[bytes]]:
        """All documents that match, the newest first, `limit` at a time."""
        found = self._sorted(map(_encoded, self._documents.find(criteria)))[::-1]
        for start in range(0, len(found) + 1, limit):
            yield found[start : start + limit]

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


class MeddledSource:
    """Any source, with a clock in the test's hands and a meddler around each call."""

    def __init__(self, source: ports.Source, clocks: Clocks, meddler: Meddler) -> None:
        self._source = source
        self._clocks = clocks
        self._around = meddler.around

    @property
    def index(self) -> Index:
        """As the source has it."""
        return self._source.index

    def prepare(self) -> bool:
        """As the source does."""
        return self._around(self._source.prepare)

    def clock(self) -> int:
        """What the test says it is."""
        return self._around(lambda: self._clocks.mongo)

    def page(self, after: Position, end: Position, limit: int) -> ports.Page:
        """As the source does."""
        return self._around(lambda: self._source.page(after, end, limit))

    def fetch(self, ids: Sequence[Any]) -> list[bytes]:
        """As the source does."""
        return self._around(lambda: self._source.fetch(ids))

    def unreachable(self) -> int:
        """As the source does."""
        return self._around(self._source.unreachable)


class MeddledWire(Wire):
    """A wire to any Redis, with a clock in the test's hands and a meddler around each exchange."""

    def __init__(self, pool: redis.ConnectionPool, clocks: Clocks, meddler: Meddler) -> None:
        super().__init__(pool)
        self._clocks = clocks
        self._around = meddler.around

    def exchange(self, commands: Sequence[Sent], generation: int | None = None) -> list[Any]:
        """As the wire does; an exchange that the meddler spoils costs the connection, as a real one would."""
        try:
            replies = self._around(lambda: super(MeddledWire, self).exchange(commands, generation))
        except BaseException:
            self._drop()
            raise
        if ("TIME",) not in commands:
            return replies
        now = [str(self._clocks.redis // 1000), str(self._clocks.redis % 1000 * 1000)]
        return [
            now if command == ("TIME",) else reply for command, reply in zip(commands, replies, strict=True)
        ]


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
            except Transient:
                pass
        return step()


def fake_documents() -> Any:
    """An empty collection that speaks pymongo's language."""
    return mongomock.MongoClient()["database"][NAME]


def fake_redis() -> redis.Redis:
    """An empty Redis in memory; its pool is what a `Wire` takes."""
    client: redis.Redis = fakeredis.FakeRedis(decode_responses=True, protocol=2)
    return client


def assemble(source: ports.Source, wire: Wire, retry: Retry | None = None) -> ports.Stages:
    """The four stages of the collection `NAME`, as `etl.app` puts them together."""
    retry = retry or Insistent()
    transform, own = Transform("generacion", FIELD, TTLS), companions(NAME)
    pipeline = partial(inline, transform)
    return ports.Stages(
        source=source,
        transform=transform,
        cache=Cache(wire, NAME, own, Ownership(NAME, _LONG)),
        checkpoint=CheckpointStore(wire, NAME, own, 1320, retry),
        inline=pipeline,
        crew=pipeline,
        retry=retry,
        stop=threading.Event(),
    )


def take_lease(client: redis.Redis) -> str:
    """A new fencing token, as if the lease of whoever had it were over."""
    own = companions(NAME)
    client.delete(own.lease)
    nonce = f"{next(_NONCES):012x}"
    answer: Any = client.eval(SCRIPTS["acquire"].source, 2, own.lease, own.fence, "host:1", nonce, "30000")
    return str(answer[1])
