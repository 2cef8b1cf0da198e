"""The stages of a collection, assembled on real servers or on mongomock and fakeredis."""

import itertools
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from typing import Any, TypeVar

import fakeredis
import mongomock
import redis

from etl.cache.client import Wire
from etl.cache.keys import StateKeys, state_keys
from etl.cache.scripts import SCRIPTS
from etl.cache.writer import CacheWriter
from etl.checkpoint.checkpoint import CheckpointStore
from etl.errors import TransientError
from etl.interfaces import Reader, Stages
from etl.model.result import TransformResult
from etl.retry import Retry
from etl.sync.processor import Processor
from etl.transform.transform import Transform
from schemas.documents import FAMILIES
from schemas.ids import id_from_text

T = TypeVar("T")

NAME = "promptContent"
FIELD = "updated_at"
OWN = state_keys(NAME)

_MEMORY_SECONDS = 1_440
_PAGE_SIZE = 3
_NONCES = itertools.count()


class ImmediateRetry(Retry):
    """Retries a few times without waiting."""

    def __init__(self, tries: int = 4) -> None:
        super().__init__(0, threading.Event())
        self._tries = tries

    def __call__(self, step: Callable[[], T]) -> T:
        for _ in range(self._tries - 1):
            try:
                return step()
            except TransientError:
                pass
        return step()


def fake_documents() -> Any:
    """An empty collection with the interface of pymongo."""
    return mongomock.MongoClient()["database"][NAME]


def fake_redis() -> redis.Redis:
    """An empty fake Redis; a `Wire` can use its connection pool."""
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
    """The four stages of the collection `NAME`, assembled as in `etl.container`."""
    retry = retry or ImmediateRetry()
    transform, prefix = Transform(NAME, "generacion", FIELD, 2**20), f"{NAME} "

    def reread(names: Collection[str]) -> list[TransformResult]:
        ids = [id_from_text(name.removeprefix(prefix)) for name in names if name.startswith(prefix)]
        return transform(reader.fetch(ids))

    processor = Processor(
        writer=CacheWriter(wire, ttls or {name: f.ttl for name, f in FAMILIES.items()}, _MEMORY_SECONDS),
        source=NAME,
        reread=reread,
        is_configured=lambda name: name.startswith(prefix),
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
    """A new fencing token, as if the lease of the previous holder had expired."""
    client.delete(keys.lease)
    holder = f"host:1:{next(_NONCES):012x}"
    answer: Any = client.eval(SCRIPTS["acquire"].source, 2, keys.lease, keys.fence, holder, "30000")
    return str(answer[1])
