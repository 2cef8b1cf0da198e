"""The Prometheus metrics: counters, and gauges read at each scrape.

`config/grafana-dashboard.json`, `config/alerts.yml` and docs/metrics.md use the names defined here; tests compare them.
"""

import platform
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Final

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

from etl.model.report import RefreshReport, Report
from etl.monitoring.health import HealthSnapshot
from etl.monitoring.status import CollectionStatus
from etl.settings import Settings
from etl.sync.follow import Followed
from schemas.documents import KINDS
from schemas.families import GENERATION_QUEUE

VERSION: Final = version("promptcontent-etl")

OUTCOMES: Final = ("written", "evicted", "enqueued", "dead_lettered")
"""The outcomes of a document; each is a field of `etl.model.report.Report`."""

_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 660, 1800, 3600, 10_800)

_Measure = Callable[[CollectionStatus], float | None]
_MEASURED: Final[Sequence[tuple[str, str, _Measure]]] = (
    (
        "etl_lag_seconds",
        "Age of the oldest change that is not applied yet.",
        lambda s: s.lag_seconds,
    ),
    (
        "etl_seconds_since_success",
        "Time since the end of the last successful cycle.",
        lambda s: s.seconds_since_success,
    ),
    ("etl_dead_letters", "Documents that could not be applied.", lambda s: s.dead_letters),
    (
        "etl_dead_letters_beyond",
        "Dead letters that were counted but not kept.",
        lambda s: s.dead_letters_beyond,
    ),
    ("etl_deferred_documents", "Documents that wait for the lock of a campaign.", lambda s: s.deferred_count),
    (
        "etl_unreachable_documents",
        "Documents without a timestamp, which cycles cannot find.",
        lambda s: s.unreachable,
    ),
    (
        "etl_follow_lag_seconds",
        "Age of the last applied event of the change stream while further ones are waiting.",
        lambda s: s.follow["lag_seconds"] if s.follow else None,
    ),
    ("etl_lease_held", "Whether the lease of the collection is held.", lambda s: bool(s.lease_holder)),
)
"""Gauges per collection: name, help, value in the status; None for no sample."""


class Metrics:
    """The metrics of one daemon, in a registry of their own; every counter starts at zero."""

    def __init__(self, settings: Settings) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series of each, that is not used
        self._cycle_seconds = settings.schedule.cycle_seconds
        self._names = [collection.name for collection in settings.collections]
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._documents = self._counter("etl_documents", "Documents by outcome.", "collection", "outcome")
        self._cycles = self._counter("etl_cycles", "Cycles by status.", "collection", "status")
        self._entries = self._counter("etl_entries_written", "Entries written to Redis.", "family")
        self._refreshes = self._counter("etl_refreshes", "Refreshes by status.", "family", "status")
        self._retries = self._counter("etl_retries", "Failed steps that were retried.", "task")
        self._skipped = self._counter(
            "etl_skipped_runs", "Runs that were due and did not take place.", "task"
        )
        self._late = self._counter("etl_late_runs", "Runs that started over a second late.", "task")
        self._events = self._counter(
            "etl_follow_events", "Events of the change stream.", "collection", "operation"
        )
        self._restarts = self._counter(
            "etl_follow_restarts", "Change streams that were reopened.", "collection", "reason"
        )
        self._duration = Histogram(
            "etl_cycle_duration_seconds",
            "Duration of a cycle.",
            ["collection"],
            registry=self._registry,
            buckets=_BUCKETS,
        )
        build = ["version", "python"]
        info = Gauge("etl_build_info", "Version of the daemon; always 1.", build, registry=self._registry)
        info.labels(VERSION, platform.python_version()).set(1)
        self._begin(settings)

    def cycle(self, report: Report) -> None:
        """Count a cycle; if the lease was held by another holder only as `locked`."""
        self._cycles.labels(report.collection, report.status).inc()
        if report.status == "locked":
            return
        self._duration.labels(report.collection).observe(report.sync_duration_ms / 1000)
        for outcome in OUTCOMES:
            self._documents.labels(report.collection, outcome).inc(getattr(report, outcome))
        self._entries.labels(GENERATION_QUEUE.name).inc(report.enqueued)
        for family, count in report.entries.items():
            self._entries.labels(family).inc(count)

    def cycle_failed(self, collection: str) -> None:
        """Count a cycle that failed before it had a report."""
        self._cycles.labels(collection, "failed").inc()

    def refreshed(self, report: RefreshReport) -> None:
        """Count a successful refresh."""
        self._refreshes.labels(report.family, "ok").inc()
        self._entries.labels(report.family).inc(report.written)

    def refresh_failed(self, family: str) -> None:
        """Count a failed refresh."""
        self._refreshes.labels(family, "failed").inc()

    def followed(self, collection: str, batch: Followed) -> None:
        """Count the events of a follower, and the restarts of its stream."""
        for operation, count in batch.operations.items():
            self._events.labels(collection, operation).inc(count)
        if batch.restarted:
            self._restarts.labels(collection, batch.restarted).inc()

    def retried(self, task: str) -> None:
        """Count a retried step; `task` is a collection or a family."""
        self._retries.labels(task).inc()

    def skipped(self, task: str, runs: int) -> None:
        """Count skipped runs."""
        self._skipped.labels(task).inc(runs)

    def late(self, task: str) -> None:
        """Count a late run."""
        self._late.labels(task).inc()

    def text(self, snapshot: HealthSnapshot, accept: str = "") -> tuple[bytes, str]:
        """All metrics in a format that the scraper accepts, and its content type."""
        scrape = CollectorRegistry()
        scrape.register(self._registry)
        scrape.register(_Measured(snapshot, self._names, self._cycle_seconds))
        encode, form = choose_encoder(accept)
        return encode(scrape), form

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self._registry)

    def _begin(self, settings: Settings) -> None:
        refreshed = [name for name, life in settings.families.items() if life.refresh_seconds is not None]
        for name in self._names:
            self._duration.labels(name)
            for status in ("ok", "failed", "locked"):
                self._cycles.labels(name, status)
            for outcome in OUTCOMES:
                self._documents.labels(name, outcome)
        for family in sorted({family.name for kind in KINDS.values() for family in kind.families}):
            self._entries.labels(family)
        for family in refreshed:
            self._refreshes.labels(family, "ok")
            self._refreshes.labels(family, "failed")
        for task in (*self._names, *refreshed):
            self._retries.labels(task)
            self._skipped.labels(task)
            self._late.labels(task)


class _Measured(Collector):
    """The gauges of one snapshot. Unknown values have no sample, not zero."""

    def __init__(self, snapshot: HealthSnapshot, names: Sequence[str], cycle_seconds: float) -> None:
        self._snapshot = snapshot
        self._names = names
        self._cycle_seconds = cycle_seconds

    def collect(self) -> Iterator[Metric]:
        """The metric families."""
        up = GaugeMetricFamily("etl_server_up", "Whether the server answers.", labels=["server"])
        for server in ("mongodb", "redis"):
            up.add_metric([server], server not in self._snapshot.away)
        yield up
        interval = _of_collections("etl_cycle_interval_seconds", "Time from one cycle to the next.")
        for name in self._names:
            interval.add_metric([name], self._cycle_seconds)
        yield interval
        for name, text, measure in _MEASURED:
            yield self._measured(_of_collections(name, text), measure)
        yield self._queues()

    def _measured(self, family: GaugeMetricFamily, measure: _Measure) -> GaugeMetricFamily:
        for status in self._snapshot.collections:
            value = measure(status)
            if value is not None:
                family.add_metric([status.collection], value)
        return family

    def _queues(self) -> GaugeMetricFamily:
        """Each queue once, although several collections may fill it."""
        family = GaugeMetricFamily("etl_queue_length", "Requests in a queue.", labels=["queue"])
        lengths = {queue: n for status in self._snapshot.collections for queue, n in status.queues.items()}
        for queue, length in sorted(lengths.items()):
            family.add_metric([queue], length)
        return family


def _of_collections(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=["collection"])
