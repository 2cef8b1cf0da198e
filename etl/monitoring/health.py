"""The health of the daemon: status of the collections, servers that do not answer, readiness.

The servers are read once a second at most, by one thread at a time, however many clients ask.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

from etl.errors import EtlError, error_location
from etl.monitoring.status import CollectionStatus

KEPT_SECONDS: Final = 1.0

STOPPING: Final = "the daemon is stopping"

_POLL_SECONDS: Final = 0.005

Snapshot = TypeVar("Snapshot")


class HealthSource(Protocol):
    """The source of the status: see `etl.app.App`."""

    def status(self, *, mongodb_away: str | None = None) -> list[CollectionStatus]:
        """The state of each collection; MongoDB is not asked if it is known not to answer."""
        ...

    def away(self) -> dict[str, str]:
        """The servers that do not answer, each with the reason."""
        ...


@dataclass(frozen=True, slots=True)
class HealthSnapshot:
    """The status of each collection, or why there is none."""

    collections: Sequence[CollectionStatus] = ()
    away: Mapping[str, str] = field(default_factory=dict)
    """The servers (`redis`, `mongodb`) that do not answer, each with the reason."""
    error: str | None = None
    """Why the status could not be read."""

    def problems(self, cycle_seconds: float) -> list[str]:
        """The reasons for not being ready: a server does not answer, or no successful cycle in two intervals."""
        failures = [*self.away.values(), self.error, *(one.error for one in self.collections)]
        distinct = dict.fromkeys(failure for failure in failures if failure is not None)
        return [*distinct, *(text for one in self.collections for text in _stale(one, 2 * cycle_seconds))]


def _stale(status: CollectionStatus, limit: float) -> Iterator[str]:
    since = status.seconds_since_success
    if since is None:
        yield f"{status.collection}: no cycle has finished yet"
    elif since > limit:
        yield f"{status.collection}: the last cycle that finished did so {since:.0f} s ago"


def take_snapshot(source: HealthSource) -> HealthSnapshot:
    """Read the status; errors are part of the result, so that the rest stays visible."""
    away: Mapping[str, str] = {}
    try:
        away = source.away()
        if "redis" in away:  # do not wait for it a second time
            return HealthSnapshot(away=away, error=away["redis"])
        return HealthSnapshot(source.status(mongodb_away=away.get("mongodb")), away)
    except EtlError as error:
        return HealthSnapshot(away=away, error=str(error))
    except Exception as error:  # noqa: BLE001 (last resort: one unexpected key must not hide everything)
        return HealthSnapshot(away=away, error=error_location(error))


class SnapshotCache(Generic[Snapshot]):
    """Caches a snapshot of the servers, shared by all clients.

    Args:
        new: reads a snapshot; must not raise.
        stopping: the answer once the daemon stops.
        kept_seconds: how long a snapshot is reused.
    """

    def __init__(
        self, new: Callable[[], Snapshot], stopping: Snapshot, kept_seconds: float = KEPT_SECONDS
    ) -> None:
        self._new = new
        self._stopped = stopping
        self._kept = stopping
        self._kept_seconds = kept_seconds
        self._one_at_a_time = asyncio.Lock()
        self._until = float("-inf")
        self._stopping = threading.Event()

    async def current(self) -> Snapshot:
        """The current value, read in a thread if it is too old."""
        async with self._one_at_a_time:
            if time.monotonic() > self._until:
                # A daemon thread, unlike those of a pool: the process can exit without waiting for a server.
                reader = threading.Thread(target=self._read, name="snapshot", daemon=True)
                reader.start()
                while reader.is_alive() and not self._stopping.is_set():  # noqa: ASYNC110 (set by threads)
                    await asyncio.sleep(_POLL_SECONDS)
        return self._stopped if self._stopping.is_set() else self._kept

    def stop(self) -> None:
        """Answer all waiting clients, and all further ones, immediately."""
        self._stopping.set()

    def _read(self) -> None:
        self._kept = self._new()
        self._until = time.monotonic() + self._kept_seconds
