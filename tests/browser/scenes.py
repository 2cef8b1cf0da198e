"""Fake statuses and histories, which the page reads over real HTTP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from etl.app import CollectionStatus
from etl.errors import RedisUnavailable
from etl.monitoring.health import HealthSnapshot, take_snapshot
from schemas.values import date_text
from tests.support.statuses import FakeHealthSource, status

INTERVAL = 660
HOSTILE = '<img src="x" onerror="document.title=\'hacked\'">'


def ago(seconds: float) -> str:
    """The time `seconds` ago as text; negative for the future."""
    return date_text(datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=seconds))


def healthy(name: str = "promptContent", **changes: Any) -> CollectionStatus:
    """A collection whose last cycle succeeded three minutes ago."""
    good = {
        "collection": name,
        "last_timestamp": ago(210),
        "lag_seconds": 0.0,
        "last_cycle": run(168, 156, 55),
        "seconds_since_success": 168.0,
        "next_cycle": ago(-492),
        "dead_letters": 0,
        "deferred_count": 0,
        "unreachable": 0,
        "lease_holder": None,
        "leader": "etl-7d9c:1:0123456789ab",
        "reconciliation": {
            "ended": ago(5000),
            "documents": 200_000,
            "different": 2,
            "missing": 1,
            "orphaned": 4,
            "repaired": 7,
            "duration_ms": 9000,
        },
        "queues": {"queue:ai_generation:alta": 12, "queue:ai_generation:media": 140},
    }
    return status(**good | changes)


def run(seconds: float, records: int, ms: int, **changes: Any) -> dict[str, Any]:
    """The report of a run that began `seconds` ago."""
    report = {"began": ago(seconds), "status": "ok", "mode": "delta", "records_processed": records}
    return report | {"sync_duration_ms": ms, "error": None} | changes


def runs(count: int = 60) -> list[dict[str, Any]]:
    """Cycles of varying sizes, the newest first; one of them failed."""
    found = [
        run(168 + n * INTERVAL, (n * 7919) % 320 + (900 if n == 30 else 12), 40 + (n * 104_729) % 90)
        for n in range(count)
    ]
    if count > 12:
        found[12] = run(168 + 12 * INTERVAL, 0, 20_000, status="failed", error="MongoDB does not answer")
    return found


def dead_letter(number: int, document_id: str, reason: str, *errors: tuple[str, str]) -> dict[str, Any]:
    """A dead letter as in `/history`."""
    named = [{"field": name, "problem": problem} for name, problem in errors]
    seen = {"first_seen": ago(900 + number * 60), "last_seen": ago(168), "attempts": number}
    return {"id": document_id, "reason": reason, "errors": named, **seen}


def past(
    name: str = "promptContent", letters: Sequence[Mapping[str, Any]] = (), count: int = 60
) -> dict[str, Any]:
    """A collection in `/history`."""
    reasons = [
        {"reason": one["reason"], "fields": [e["field"] for e in one["errors"]], "count": 1}
        for one in letters
    ]
    dead = {"count": len(letters), "reasons": reasons, "newest": list(letters)}
    return {"collection": name, "runs": runs(count), "dead_letters": dead}


@dataclass
class Scene:
    """The state of the servers; a test may change it while the page is open."""

    collections: list[CollectionStatus] = field(default_factory=lambda: [healthy()])
    past: list[dict[str, Any]] = field(default_factory=lambda: [past()])
    away: dict[str, str] = field(default_factory=dict)
    error: Exception | None = None

    def snapshot(self) -> HealthSnapshot:
        """The snapshot for `/status`."""
        return take_snapshot(
            FakeHealthSource(*([self.error] if self.error else self.collections), away=self.away)
        )

    def read(self) -> list[dict[str, Any]]:
        """The collections for `/history`."""
        if "redis" in self.away:
            raise RedisUnavailable(self.away["redis"])
        return self.past
