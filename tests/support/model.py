"""The model of what Redis must hold after the events of a world, and its checks."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import redis

from etl.model.report import Report
from schemas.families import GENERATION_QUEUE
from schemas.ids import id_text
from schemas.operations import Projection, Reject
from schemas.position import Position, position_from_text
from tests.support.assembly import OWN
from tests.support.clocks import Clocks
from tests.support.redis_dump import values
from tests.support.versions import Value, Version

TTLS: Final = {
    "ai:campaign_messages": 1500,
    "ai:generation:meta": 1500,
    "config:api": 900,
    "queue:ai_generation": None,
}
"""Short enough for keys to expire while a world is at work."""

QUEUES: Final = [GENERATION_QUEUE.key(priority=priority) for priority in ("alta", "media", "baja")]


@dataclass(kw_only=True)
class Model:
    """The versions of all documents, and what they say about Redis."""

    documents: Any
    client: redis.Redis
    clocks: Clocks
    current: dict[int, Version] = field(default_factory=dict)
    """The version that MongoDB holds, by number of the slot."""
    past: list[Version] = field(default_factory=list)
    """Versions that MongoDB held since Redis was last flushed, in the order of their coming."""
    settled: dict[int, Version] = field(default_factory=dict)
    """The last version of each slot that a cycle has certainly applied, and that decides about its keys."""
    locked: set[str] = field(default_factory=set)
    popped: list[tuple[str, str]] = field(default_factory=list)
    position: Position | None = None

    def check_truth(self, report: Report) -> None:
        """Redis holds what MongoDB says, but for campaigns under a lock."""
        for number, version in self.current.items():
            if version.lock not in self.locked and isinstance(version.projection, Projection):
                version.must_be_queued = True
                if not version.keeps:
                    self.settled[number] = version
        self.check_safety()
        contents = self.contents()
        waiting = {key for v in self._versions() if v.lock in self.locked for key in v.claims}
        for key in {key for v in self._versions() for key in v.claims} - waiting:
            assert contents.get(key) in self._allowed(key), key
        given = Counter([*self.queued(), *self.popped])
        requests = self._requests()
        counted = [given[request] for request in requests]
        least = [self._asked(request, must=True) for request in requests]
        assert all(n >= m for n, m in zip(counted, least, strict=True)), (counted, least)
        self._check_dead_letters()
        assert report.unreachable == self.documents.count_documents({"_id": "dateless"})
        assert report.deferred == self.client.hlen(OWN.deferred)
        if not self.locked:
            assert report.deferred == 0

    def check_safety(self) -> None:
        """What holds at any moment: no request is there twice, and the checkpoint never goes back."""
        for request, times in Counter([*self.queued(), *self.popped]).items():
            assert times <= self._asked(request), f"{request} is queued {times} times"
        text: Any = self.client.hget(OWN.checkpoint, "position")
        position = position_from_text(text) if text else None
        if self.position is not None:
            assert position is not None
            assert position.order() >= self.position.order(), "the checkpoint went back"
        self.position = position

    def _check_dead_letters(self) -> None:
        dead: Any = set(self.client.hkeys(OWN.dead_letters))
        invalid = self._invalid()
        mended = {id_text(v.slot.id) for v in self.current.values() if v.lock in self.locked}
        deleted = {id_text(v.slot.id) for v in self.past if v.slot.number not in self.current}
        assert invalid <= dead
        assert dead <= invalid | mended | deleted

    def _invalid(self) -> set[str]:
        return {id_text(v.slot.id) for v in self.current.values() if isinstance(v.projection, Reject)}

    def _allowed(self, key: str) -> list[Value]:
        """What may be under a key: what its newest claim says.

        Where the document of an earlier claim has become invalid, or asks for messages, or was deleted, that may
        stand instead, for it says nothing else: but not against a newer claim, nor against one that came after it
        was deleted. And what has not been written for the life of a key may have expired, and made room for older
        claims. Of one date, where only MongoDB can tell which is newer, either may stand.
        """
        certain = [(v, True) for v in self.current.values() if key in v.claims]
        standing = [(v, False) for v in self.past if key in v.claims and self._may_stand(v, key)]
        allowed: list[Value] = []
        for version, is_certain in sorted(certain + standing, key=lambda one: one[0].order(), reverse=True):
            allowed.append(version.claims[key])
            if version.visible_at + _life(key) <= self.clocks.redis:
                allowed.append(None)
            elif is_certain:
                ms = version.position.ms
                return allowed + [one.claims[key] for one, _ in standing if one.position.ms == ms]
        return [*allowed, None]

    def _may_stand(self, version: Version, key: str) -> bool:
        """Whether a version of the past may still be in Redis: its document says nothing else by now."""
        number = version.slot.number
        settled, now = self.settled.get(number), self.current.get(number)
        if settled is not None and version.committed < settled.committed:
            return False
        if now is not None:
            return isinstance(now.projection, Reject) or key in now.keeps
        deleted = max(v.replaced for v in self.past if v.slot.number == number)
        return not any(key in v.claims and v.committed > deleted for v in self.current.values())

    def contents(self) -> dict[str, Value]:
        """Every key of the contract that documents fill, and what it holds."""
        return values(self.client, "ai:*") | values(self.client, "config:*")

    def queued(self) -> list[tuple[str, str]]:
        """Each request in a queue, with the name of the queue."""
        items: dict[str, Any] = {queue: self.client.lrange(queue, 0, -1) for queue in QUEUES}
        return [(queue, item) for queue, queued in items.items() for item in queued]

    def _versions(self) -> list[Version]:
        return [*self.current.values(), *self.past]

    def _requests(self) -> set[tuple[str, str]]:
        return {v.request for v in self._versions() if v.request is not None} | set(self.queued())

    def _asked(self, request: tuple[str, str], *, must: bool = False) -> int:
        """How many versions ask for it (or must have been given it)."""
        return sum(v.request == request and (v.must_be_queued or not must) for v in self._versions())


def _life(key: str) -> int:
    """Milliseconds that the key lives after it was written."""
    return 1000 * next(ttl for family, ttl in TTLS.items() if ttl and key.startswith(f"{family}:"))
