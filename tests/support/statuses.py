"""Fake statuses."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from etl.app import CollectionStatus
from etl.monitoring.health import STOPPING, HealthSnapshot, SnapshotCache
from etl.monitoring.history import QueueLengths, Recent, recent
from etl.monitoring.metrics import Metrics
from etl.monitoring.routes import Endpoints
from etl.settings import Settings

HEALTHY = CollectionStatus(
    collection="promptContent",
    last_id="ObjectId('507f1f77bcf86cd799439011')",
    last_timestamp="2025-01-15T10:30:00Z",
    lag_seconds=1.5,
    last_cycle={"status": "ok"},
    seconds_since_success=12.0,
    next_cycle="2025-01-15T10:41:00Z",
    dead_letters=3,
    dead_letters_beyond=0,
    deferred=[],
    deferred_count=2,
    unreachable=4,
    lease_holder="here:1",
    queues={"queue:ai_generation:alta": 5},
    leader="here:1",
    scans=[],
    reconciliation=None,
    follow={"state": "following", "lag_seconds": 0.0, "last_event": None, "holder": "here:1"},
    error=None,
)


def status(**changes: Any) -> CollectionStatus:
    """A healthy status with these changes."""
    return replace(HEALTHY, **changes)


def endpoints(
    new: Callable[[], HealthSnapshot],
    read: Callable[[], Sequence[Mapping[str, Any]]] = list,
    settings: Settings | None = None,
    queues: QueueLengths | None = None,
) -> Endpoints:
    """The HTTP endpoints of the daemon with this status and history."""
    settings = settings or Settings()
    return Endpoints(
        settings,
        SnapshotCache(new, HealthSnapshot(error=STOPPING)),
        SnapshotCache(lambda: recent(read), Recent(error=STOPPING)),
        queues or QueueLengths(new),
        Metrics(settings),
    )


class FakeHealthSource:
    """Returns statuses or raises an error, and counts the calls."""

    def __init__(self, *found: CollectionStatus | Exception, away: dict[str, str] | None = None) -> None:
        self.found = found
        self._away = away or {}
        self.asked = 0
        self.mongodb_away: str | None = None

    def status(self, *, mongodb_away: str | None = None) -> list[CollectionStatus]:
        self.asked += 1
        self.mongodb_away = mongodb_away
        for one in self.found:
            if isinstance(one, Exception):
                raise one
        return [one for one in self.found if isinstance(one, CollectionStatus)]

    def away(self) -> dict[str, str]:
        return self._away
