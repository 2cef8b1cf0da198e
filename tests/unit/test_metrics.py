from collections import Counter

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

from etl.model.report import RefreshReport, Report
from etl.monitoring.health import HealthSnapshot
from etl.monitoring.metrics import OUTCOMES, Metrics
from etl.settings import Settings
from tests.support.statuses import status

SETTINGS = Settings.model_validate({"collections": [{"name": "promptContent"}, {"name": "other"}]})
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def metrics() -> Metrics:
    """The metrics of a new daemon."""
    return Metrics(SETTINGS)


def samples(metrics: Metrics, snapshot: HealthSnapshot | None = None) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels, sorted by label."""
    body, _ = metrics.text(snapshot or HealthSnapshot())
    families = plain_text(body.decode())
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in families
        for sample in family.samples
    }


def test_cycle_is_counted(metrics: Metrics) -> None:
    """Documents by outcome, entries by family, duration, status."""
    report = Report("promptContent", written=3, evicted=2, enqueued=1, dead_lettered=4, sync_duration_ms=700)
    report.entries = Counter({"config:api": 5})
    metrics.cycle(report)
    metrics.cycle(report)
    found = samples(metrics)
    counted = [found["etl_documents_total", "promptContent", outcome] for outcome in OUTCOMES]
    assert counted == [6, 4, 2, 8]
    assert found["etl_entries_written_total", "config:api"] == 10
    assert found["etl_entries_written_total", "queue:ai_generation"] == 2
    assert found["etl_cycles_total", "promptContent", "ok"] == 2
    assert found["etl_cycle_duration_seconds_sum", "promptContent"] == pytest.approx(1.4)
    assert found["etl_cycle_duration_seconds_bucket", "promptContent", "0.5"] == 0
    assert found["etl_cycle_duration_seconds_bucket", "promptContent", "1.0"] == 2
    assert found["etl_documents_total", "other", "written"] == 0


def test_locked_cycle_has_no_duration(metrics: Metrics) -> None:
    """A failed one has."""
    metrics.cycle(Report("promptContent").failed("held", 75, "locked"))
    metrics.cycle(Report("promptContent").failed("away", 1))
    found = samples(metrics)
    assert found["etl_cycles_total", "promptContent", "locked"] == 1
    assert found["etl_cycles_total", "promptContent", "failed"] == 1
    assert found["etl_cycles_total", "promptContent", "ok"] == 0
    assert found["etl_cycle_duration_seconds_count", "promptContent"] == 1


def test_refreshes_retries_and_misfires_are_counted(metrics: Metrics) -> None:
    """By family or collection."""
    metrics.refreshed(RefreshReport("mcp:server:status", None, written=7))
    metrics.refresh_failed("mcp:server:status")
    metrics.retried("other")
    metrics.skipped("other", 3)
    metrics.late("mcp:server:status")
    found = samples(metrics)
    assert found["etl_entries_written_total", "mcp:server:status"] == 7
    assert found["etl_refreshes_total", "mcp:server:status", "ok"] == 1
    assert found["etl_refreshes_total", "mcp:server:status", "failed"] == 1
    assert found["etl_retries_total", "other"] == 1
    assert found["etl_skipped_runs_total", "other"] == 3
    assert found["etl_late_runs_total", "mcp:server:status"] == 1


def test_every_counter_starts_at_zero(metrics: Metrics) -> None:
    """`increase()` does not see an event that creates its series."""
    before = samples(metrics).keys()
    report = Report("other", written=1)
    report.entries = Counter({"config:client": 1})
    metrics.cycle(report)
    metrics.refreshed(RefreshReport("mcp:server:status", None, written=7))
    metrics.retried("promptContent")
    metrics.late("promptContent")
    metrics.skipped("promptContent", 1)
    assert samples(metrics).keys() == before


def test_gauges_show_the_status(metrics: Metrics) -> None:
    """Unknown numbers have no sample."""
    other = status(
        collection="other",
        lag_seconds=None,
        seconds_since_success=None,
        unreachable=None,
        lease_holder=None,
        queues={"queue:ai_generation:alta": 5, "queue:ai_generation:baja": 0},
    )
    found = samples(metrics, HealthSnapshot([status(), other]))
    measured = {name: value for name, value in found.items() if "promptContent" in name or "other" in name}
    assert (
        measured.items()
        >= {
            ("etl_lag_seconds", "promptContent"): 1.5,
            ("etl_seconds_since_success", "promptContent"): 12,
            ("etl_dead_letters", "promptContent"): 3,
            ("etl_dead_letters_beyond", "promptContent"): 0,
            ("etl_deferred_documents", "promptContent"): 2,
            ("etl_unreachable_documents", "promptContent"): 4,
            ("etl_lease_held", "promptContent"): 1,
            ("etl_lease_held", "other"): 0,
            ("etl_cycle_interval_seconds", "other"): 660,
        }.items()
    )
    for name in ("etl_lag_seconds", "etl_seconds_since_success", "etl_unreachable_documents"):
        assert (name, "other") not in found
    assert {name[1]: n for name, n in found.items() if name[0] == "etl_queue_length"} == {
        "queue:ai_generation:alta": 5,
        "queue:ai_generation:baja": 0,
    }


def test_unavailable_server_is_shown_with_the_counters(metrics: Metrics) -> None:
    """Unknown numbers have no sample."""
    metrics.retried("promptContent")
    found = samples(metrics, HealthSnapshot(away={"redis": "does not answer"}, error="does not answer"))
    assert (found["etl_server_up", "redis"], found["etl_server_up", "mongodb"]) == (0, 1)
    assert found["etl_retries_total", "promptContent"] == 1
    assert ("etl_dead_letters", "promptContent") not in found


def test_scraper_gets_the_format_it_asks_for(metrics: Metrics) -> None:
    """Both can be parsed; neither has `_created` series."""
    snapshot = HealthSnapshot([status()])
    body, form = metrics.text(snapshot, OPEN_METRICS)
    assert form.startswith("application/openmetrics-text")
    names = {family.name for family in open_metrics(body.decode())}  # type: ignore[no-untyped-call]
    assert {"etl_documents", "etl_lag_seconds"} <= names
    body, form = metrics.text(snapshot)
    assert form.startswith("text/plain")
    assert {family.name for family in plain_text(body.decode())} == names
    assert not any(name[0].endswith("_created") for name in samples(metrics, snapshot))


def test_two_daemons_in_one_process_share_nothing(metrics: Metrics) -> None:
    other = Metrics(SETTINGS)
    metrics.retried("other")
    assert samples(other)["etl_retries_total", "other"] == 0
