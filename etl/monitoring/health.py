"""What a monitor sees of the ETL at one moment, and whether that is ready.

However many ask, the servers are looked at once a second at most, and by one at a time.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

from etl.errors import EtlError, whereabouts
from etl.monitoring.status import CollectionStatus

KEPT_SECONDS: Final = 1.0

STOPPING: Final = "the daemon is stopping"

_POLL_SECONDS: Final = 0.005

Seen = TypeVar("Seen")


class Sight(Protocol):
    """What there is to see: see `etl.app.App`."""

    def status(self, *, mongodb_away: str | None = None) -> list[CollectionStatus]:
        """Where each collection stands; MongoDB is not asked where it is known to be away."""
        ...

    def away(self) -> dict[str, str]:
        """Each server that does not answer, and why."""
        ...


@dataclass(frozen=True, slots=True)
class Glance:
    """The status of each collection, or why there is none."""

    collections: Sequence[CollectionStatus] = ()
    away: Mapping[str, str] = field(default_factory=dict)
    """Why `redis` or `mongodb` does not answer, of each that does not."""
    error: str | None = None
    """Why the status could not be read."""

    def problems(self, cycle_seconds: float) -> list[str]:
        """What speaks against being ready: a server away, no cycle that finished in two intervals."""
        failures = [*self.away.values(), self.error, *(one.error for one in self.collections)]
        told = dict.fromkeys(failure for failure in failures if failure is not None)
        return [*told, *(text for one in self.collections for text in _stale(one, 2 * cycle_seconds))]


def _stale(one: CollectionStatus, limit: float) -> Iterator[str]:
    since = one.seconds_since_success
    if since is None:
        yield f"{one.collection}: no cycle has finished yet"
    elif since > limit:
        yield f"{one.collection}: the last cycle that finished did so {since:.0f} s ago"


def look(sight: Sight) -> Glance:
    """A new glance; whatever goes wrong is in it, as a monitor must see what is left."""
    away: Mapping[str, str] = {}
    try:
        away = sight.away()
        if "redis" in away:  # the status would wait for it once more
            return Glance(away=away, error=away["redis"])
        return Glance(sight.status(mongodb_away=away.get("mongodb")), away)
    except EtlError as error:
        return Glance(away=away, error=str(error))
    except Exception as error:  # noqa: BLE001 (the last resort: one odd key must not blind a monitor)
        return Glance(away=away, error=whereabouts(error))


class Lookout(Generic[Seen]):
    """Shares what is read from the servers: those who ask together, or within a second, get the same.

    Args:
        new: reads it; raises nothing.
        stopping: what is answered instead once the daemon stops.
        kept_seconds: how long it is good for whoever asks next.
    """

    def __init__(self, new: Callable[[], Seen], stopping: Seen, kept_seconds: float = KEPT_SECONDS) -> None:
        self._new = new
        self._stopped = stopping
        self._kept = stopping
        self._kept_seconds = kept_seconds
        self._one_at_a_time = asyncio.Lock()
        self._until = float("-inf")
        self._stopping = threading.Event()

    async def glance(self) -> Seen:
        """The present one, from a thread of its own."""
        async with self._one_at_a_time:
            if time.monotonic() > self._until:
                # A daemon thread, unlike those of a pool: the process ends without waiting for a server.
                looking = threading.Thread(target=self._look, name="glance", daemon=True)
                looking.start()
                while looking.is_alive() and not self._stopping.is_set():  # noqa: ASYNC110 (set by threads)
                    await asyncio.sleep(_POLL_SECONDS)
        return self._stopped if self._stopping.is_set() else self._kept

    def stop(self) -> None:
        """Answer all who wait, and let nobody wait any more."""
        self._stopping.set()

    def _look(self) -> None:
        self._kept = self._new()
        self._until = time.monotonic() + self._kept_seconds
