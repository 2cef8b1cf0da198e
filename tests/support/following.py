"""A follower in a thread, a writer for it, and the condition that Redis equals MongoDB."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Self

import redis
from pymongo.collection import Collection
from pymongo.errors import ConnectionFailure

from etl.app import App
from etl.cache.keys import state_keys
from etl.sync.follow import Followed
from tests.factories import api, campaign
from tests.support.pipeline import NAME
from tests.support.redis_dump import held
from tests.support.truth import truth
from tests.support.types import Document
from tests.support.waiting import eventually

KEYS = state_keys(NAME)


@contextmanager
def following(app: App, batches: list[Followed] | None = None) -> Iterator[threading.Thread]:
    """Follow in a thread until the block ends."""
    recorded: list[Followed] = [] if batches is None else batches
    thread = threading.Thread(target=app.follow, args=(NAME, recorded.append))
    thread.start()
    try:
        yield thread
    finally:
        app.stop()
        thread.join(30)
        assert not thread.is_alive()


class Writer:
    """Inserts, updates, moves and deletes documents that share keys, writes tombstones and requests.

    A change whose outcome is unknown after a connection failure is not counted.
    """

    def __init__(self, collection: Collection[Document], seed: int) -> None:
        self.done: Counter[str] = Counter()
        self._collection = collection
        self._random = random.Random(seed)
        self._last = datetime.now(UTC)
        self._number = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write_until_stopped)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Make no more changes."""
        self._stop.set()
        self._thread.join()

    def write(self) -> None:
        """Make one change, dated after the previous one."""
        change = self._random.choice(
            [self._insert, self._insert, self._update, self._move, self._bury, self._delete, self._ask]
        )
        change()
        self.done[change.__name__.strip("_")] += 1

    def continues(self, changes: int = 50) -> bool:
        """Whether it makes that many further changes in time."""
        wanted = sum(self.done.values()) + changes
        return eventually(lambda: sum(self.done.values()) > wanted)

    def _write_until_stopped(self) -> None:
        while not self._stop.wait(self._random.uniform(0, 0.01)):
            with suppress(ConnectionFailure):
                self.write()

    def _moment(self) -> datetime:
        now = datetime.now(UTC)
        self._last = max(
            self._last + timedelta(milliseconds=1), now.replace(microsecond=now.microsecond // 1000 * 1000)
        )
        return self._last

    def _insert(self) -> None:
        self._number += 1
        kind = api if self._random.random() < 0.5 else campaign
        self._collection.insert_one(kind(self._name(), self._moment(), _id=self._number, content=True))

    def _update(self) -> None:
        self._set(
            status=f"v{self._random.random()}",
            mensajes=[{"numero": 1, "texto": str(self._random.random()), "tono": "casual"}],
        )

    def _move(self) -> None:
        self._set(provider_name=self._name(), campana_id=self._name())

    def _bury(self) -> None:
        self._set(eliminado=True)

    def _delete(self) -> None:
        self._collection.delete_one(self._one())

    def _ask(self) -> None:
        self._number += 1
        self._collection.insert_one(
            campaign(
                f"q{self._number}", self._moment(), _id=self._number, estado="pendiente", prioridad="alta"
            )
        )

    def _set(self, **fields: object) -> None:
        self._collection.update_one(self._one(), {"$set": {**fields, "updated_at": self._moment()}})

    def _one(self) -> Document:
        return {"_id": self._random.randint(max(1, self._number - 40), self._number + 1), "content": True}

    def _name(self) -> str:
        return f"n{self._random.randrange(15)}"


def redis_agrees(
    client: redis.Redis, collection: Collection[Document], *, without: str = "-"
) -> Callable[[], bool]:
    """Whether Redis equals MongoDB, except for keys that begin with `without`."""

    def agrees() -> bool:
        with suppress(AssertionError):  # a key that is removed during the read has no TTL
            found, expected = (
                {key: value for key, value in one.items() if not key.startswith(without)}
                for one in (held(client), truth(collection))
            )
            return found == expected
        return False

    return agrees


def has_begun(client: redis.Redis) -> bool:
    """Whether a follower has recorded its token."""
    return bool(client.hexists(KEYS.follow, "token"))
