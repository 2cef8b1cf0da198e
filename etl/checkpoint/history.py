"""The reports of past runs in Redis: one list per collection, the newest first."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from etl.cache.client import Wire
from etl.cache.keys import StateKeys
from etl.model.times import iso_utc

Entry = Mapping[str, Any]
"""A `Report` as JSON, and `began`: when the run began, ISO 8601 in UTC."""

_PAGE_SIZE: Final = 100


class History:
    """The history of one collection. It is written by `CheckpointStore`, in one step with the position.

    Methods raise as `Wire.exchange` does.
    """

    def __init__(self, wire: Wire, keys: StateKeys) -> None:
        self._wire = wire
        self._key = keys.history
        self._reconciliation = keys.reconciliation

    def newest(self, limit: int) -> list[Entry]:
        """At most `limit` runs, the newest first."""
        return self._read(0, limit)

    def last_cycle(self) -> Entry | None:
        """The newest cycle, successful or not; None before the first."""
        return next((entry for entry in self._all() if _is_cycle(entry)), None)

    def last_success(self) -> Entry | None:
        """The newest successful cycle; None if there is none."""
        return next((entry for entry in self._all() if _is_cycle(entry) and entry["status"] == "ok"), None)

    def reconciliation(self) -> Entry | None:
        """The counts of the last reconciliation, and when it `ended`; None before the first."""
        [text] = self._wire.exchange([("GET", self._reconciliation)])
        return json.loads(text) if text else None

    def note_reconciliation(self, counts: Mapping[str, int]) -> None:
        """Keep the counts of a reconciliation that has just ended, with the time by the clock of Redis."""
        entry = {"ended": iso_utc(self._wire.now() // 1_000_000 * 1000), **counts}
        self._wire.exchange([("SET", self._reconciliation, json.dumps(entry))])

    def _all(self) -> Iterator[Entry]:
        """All runs; the first page has one run only, which is usually enough."""
        start, count = 0, 1
        while page := self._read(start, count):
            yield from page
            start, count = start + count, _PAGE_SIZE

    def _read(self, start: int, count: int) -> list[Entry]:
        [texts] = self._wire.exchange([("LRANGE", self._key, start, start + count - 1)])
        return [json.loads(text) for text in texts]


def began(entry: Entry) -> datetime:
    """When the run began, in UTC."""
    return datetime.fromisoformat(entry["began"])


def ended(entry: Entry) -> datetime:
    """When the run ended, in UTC."""
    return began(entry) + timedelta(milliseconds=entry["sync_duration_ms"])


def _is_cycle(entry: Entry) -> bool:
    return bool(entry["mode"] != "backfill")
