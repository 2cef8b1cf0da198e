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
"""Short enough for keys to expire during a run."""

QUEUES: Final = [GENERATION_QUEUE.key(priority=priority) for priority in ("alta", "media", "baja")]


@dataclass(kw_only=True)
class Model:
    """The versions of all documents, and the expected state of Redis."""

    documents: Any
    client: redis.Redis
    clocks: Clocks
    current: dict[int, Version] = field(default_factory=dict)
    """The version in MongoDB, by number of the slot."""
    past: list[Version] = field(default_factory=list)
    """Former versions in MongoDB since the last flush of Redis, in order."""
    settled: dict[int, Version] = field(default_factory=dict)
    """The last version of each slot that a cycle has certainly applied."""
    locked: set[str] = field(default_factory=set)
    popped: list[tuple[str, str]] = field(default_factory=list)
    position: Position | None = None

    def check_truth(self, report: Report) -> None:
        """Check that Redis equals MongoDB, except for locked campaigns."""
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
        queued_or_popped = Counter([*self.queued(), *self.popped])
        requests = self._requests()
        counted = [queued_or_popped[request] for request in requests]
        least = [self._request_count(request, must=True) for request in requests]
        assert all(n >= m for n, m in zip(counted, least, strict=True)), (counted, least)
        self._check_dead_letters()
        assert report.unreachable == self.documents.count_documents({"_id": "dateless"})
        assert report.deferred == self.client.hlen(OWN.deferred)
        if not self.locked:
            assert report.deferred == 0

    def check_safety(self) -> None:
        """Check what holds at any time: no request is queued twice, and the checkpoint never goes back."""
        for request, times in Counter([*self.queued(), *self.popped]).items():
            assert times <= self._request_count(request), f"{request} is queued {times} times"
        text: Any = self.client.hget(OWN.checkpoint, "position")
        position = position_from_text(text) if text else None
        if self.position is not None:
            assert position is not None
            assert position.order() >= self.position.order(), "the checkpoint went back"
        self.position = position

    def _check_dead_letters(self) -> None:
        dead: Any = set(self.client.hkeys(OWN.dead_letters))
        invalid = self._invalid()
        corrected = {id_text(v.slot.id) for v in self.current.values() if v.lock in self.locked}
        deleted = {id_text(v.slot.id) for v in self.past if v.slot.number not in self.current}
        assert invalid <= dead
        assert dead <= invalid | corrected | deleted

    def _invalid(self) -> set[str]:
        return {id_text(v.slot.id) for v in self.current.values() if isinstance(v.projection, Reject)}

    def _allowed(self, key: str) -> list[Value]:
        """The possible values of a key: that of its newest claim.

        If the document of an earlier claim has become invalid or pending, or was deleted, its claim is possible
        too, but not against a newer claim, nor against one committed after the
        deletion. A value that was written longer than the TTL ago may have expired, and been replaced by older
        claims. Of several claims at one date each is possible.
        """
        certain = [(v, True) for v in self.current.values() if key in v.claims]
        standing = [(v, False) for v in self.past if key in v.claims and self._may_remain(v, key)]
        allowed: list[Value] = []
        for version, is_certain in sorted(certain + standing, key=lambda one: one[0].order(), reverse=True):
            allowed.append(version.claims[key])
            if version.visible_at + _ttl_ms(key) <= self.clocks.redis:
                allowed.append(None)
            elif is_certain:
                ms = version.position.ms
                return allowed + [one.claims[key] for one, _ in standing if one.position.ms == ms]
        return [*allowed, None]

    def _may_remain(self, version: Version, key: str) -> bool:
        """Whether a former version may still be in Redis, because its document has no other content now."""
        number = version.slot.number
        settled, now = self.settled.get(number), self.current.get(number)
        if settled is not None and version.committed < settled.committed:
            return False
        if now is not None:
            return isinstance(now.projection, Reject) or key in now.keeps
        deleted = max(v.replaced for v in self.past if v.slot.number == number)
        return not any(key in v.claims and v.committed > deleted for v in self.current.values())

    def contents(self) -> dict[str, Value]:
        """Every contract key filled from documents, with its value."""
        return values(self.client, "ai:*") | values(self.client, "config:*")

    def queued(self) -> list[tuple[str, str]]:
        """Each request in a queue, with the name of the queue."""
        items: dict[str, Any] = {queue: self.client.lrange(queue, 0, -1) for queue in QUEUES}
        return [(queue, item) for queue, queued in items.items() for item in queued]

    def _versions(self) -> list[Version]:
        return [*self.current.values(), *self.past]

    def _requests(self) -> set[tuple[str, str]]:
        return {v.request for v in self._versions() if v.request is not None} | set(self.queued())

    def _request_count(self, request: tuple[str, str], *, must: bool = False) -> int:
        """The number of versions with this request, or of those that must have been queued."""
        return sum(v.request == request and (v.must_be_queued or not must) for v in self._versions())


def _ttl_ms(key: str) -> int:
    """The TTL of the key in milliseconds."""
    return 1000 * next(ttl for family, ttl in TTLS.items() if ttl and key.startswith(f"{family}:"))
