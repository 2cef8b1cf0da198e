"""When a job runs again, and what it logs, with a fake application."""

from collections.abc import Callable, Iterator
from typing import cast

import pytest

from etl.app import App
from etl.daemon.jobs import Job, JobContext, jobs
from etl.errors import (
    ConfigurationError,
    EtlError,
    Interrupted,
    LeaseHeldError,
    RedisUnavailable,
    TransientError,
)
from etl.model.report import RefreshReport, Report
from etl.monitoring.metrics import Metrics
from etl.settings import Settings
from etl.verify.report import VerifyReport
from tests.unit.test_metrics import samples

CYCLE, LEASE = 660, 30
NAME, FAMILY = "promptContent", "mcp:server:status"
Result = Report | VerifyReport | Exception


class FakeLease:
    """The leader lease: free, unless `other` names its holder and the remaining seconds."""

    def __init__(self) -> None:
        self.other: LeaseHeldError | None = None
        self.held = False
        self.released = 0

    def acquire(self) -> None:
        if self.other:
            raise self.other
        self.held = True

    def release(self) -> None:
        self.released += self.held
        self.held = False


class FakeApp:
    """Returns or raises one prepared result for each run, and repeats the last one."""

    def __init__(self, on_retry: Callable[[TransientError], None]) -> None:
        self.on_retry = on_retry
        self.results: list[Result] = [Report(NAME)]
        self.servers_away: dict[str, str] = {}
        self.lease = FakeLease()
        self.closed = False
        self.cycles = 0
        self.due: bool | EtlError = False

    def leader_lease(self, _: str) -> FakeLease:
        return self.lease

    def close(self) -> None:
        self.closed = True

    def reconciliation_due(self, _: str) -> bool:
        if isinstance(self.due, EtlError):
            raise self.due
        return self.due

    def reconcile(self, _: str) -> VerifyReport | None:
        self.due = False
        return cast("VerifyReport | None", self._next())

    def sync(self, _: list[str]) -> Iterator[Report]:
        self.cycles += 1
        yield cast("Report", self._next())

    def refresh(self, family: str) -> RefreshReport:
        self._next()
        return RefreshReport(family, None, written=1)

    def away(self) -> dict[str, str]:
        return self.servers_away

    def _next(self) -> Result:
        result = self.results.pop(0) if len(self.results) > 1 else self.results[0]
        if isinstance(result, Exception):
            raise result
        return result


class Jobs:
    """The jobs of a daemon, and the delays that they asked for."""

    def __init__(self, **settings: object) -> None:
        self.settings = Settings.model_validate(settings)
        self.metrics = Metrics(self.settings)
        self.postponed: list[float] = []
        self.apps: list[FakeApp] = []
        context = JobContext(self.settings, self.metrics, self._postpone, self._start)
        self.jobs = {job.task: job for job in jobs(context)}

    @property
    def cycles(self) -> Job:
        """The job of the one collection."""
        return self.jobs[NAME]

    @property
    def app(self) -> FakeApp:
        """Its application."""
        return cast("FakeApp", self.cycles.app)

    def _postpone(self, _: str, seconds: float) -> None:
        self.postponed.append(seconds)

    def _start(self, _: Settings, on_retry: Callable[[TransientError], None]) -> App:
        self.apps.append(FakeApp(on_retry))
        return cast("App", self.apps[-1])


@pytest.fixture(autouse=True)
def _log_level_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "etl")


def failed(text: str = "MongoDB does not answer") -> Report:
    """The report of a failed cycle."""
    return Report(NAME).failed(text, 1)


def test_each_collection_and_refreshed_family_has_a_job() -> None:
    settings = {
        "collections": [{"name": "a"}, {"name": "b"}],
        "families": {"config:api": {"refresh_seconds": 9}},
    }
    daemon = Jobs(**settings)
    assert {task: job.seconds for task, job in daemon.jobs.items()} == {
        "a": CYCLE,
        "b": CYCLE,
        "config:api": 9,
        FAMILY: 240,
        "a, reconciliation": CYCLE,
        "b, reconciliation": CYCLE,
    }
    assert len({id(job.app) for job in daemon.jobs.values()}) == 6


def test_cycle_is_counted_and_logged_if_it_did_something(caplog: pytest.LogCaptureFixture) -> None:
    """The next one starts at its interval."""
    daemon = Jobs()
    daemon.cycles()
    assert caplog.messages == []
    daemon.app.results = [Report(NAME, records_processed=3)]
    daemon.cycles()
    assert caplog.messages == ["3 processed, 0 dead letters, 0 deferred, 0 unreachable in 0 ms"]
    assert daemon.postponed == []
    assert samples(daemon.metrics)["etl_cycles_total", NAME, "ok"] == 2


def test_cycle_starts_soon_after_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    """The servers are probed every few seconds, without a cycle; each error is logged once."""
    daemon = Jobs()
    daemon.app.results = [failed(), Report(NAME)]
    daemon.app.servers_away = {"redis": "Redis does not answer", "mongodb": "MongoDB does not answer"}
    for _ in range(4):
        daemon.cycles()
    assert (daemon.app.cycles, daemon.postponed) == (1, [5, 5, 5, 5])
    daemon.app.servers_away = {}
    daemon.cycles()
    assert (daemon.app.cycles, daemon.postponed) == (2, [5, 5, 5, 5])
    assert caplog.messages == ["MongoDB does not answer", "Redis does not answer", "recovered"]


def test_failure_while_both_servers_answer_is_retried_once_per_interval() -> None:
    """The leader lease is released each time, because another daemon may succeed."""
    daemon = Jobs()
    daemon.app.results = [failed("the checkpoint would have gone backwards")]
    daemon.cycles()
    daemon.cycles()
    assert daemon.postponed == [5, CYCLE]
    assert daemon.app.lease.released == 2
    daemon.cycles()
    assert daemon.postponed[2:] == [5]


def test_retry_is_never_later_than_the_next_run() -> None:
    daemon = Jobs(schedule={"cycle_seconds": 2})
    daemon.app.results = [failed()]
    daemon.app.servers_away = {"redis": "away"}
    daemon.cycles()
    daemon.cycles()
    assert daemon.postponed == []


def test_daemon_without_the_leader_lease_stands_by(caplog: pytest.LogCaptureFixture) -> None:
    """It logs that once, and tries again when the lease would expire. Its first cycle runs at once."""
    daemon = Jobs()
    daemon.app.lease.other = LeaseHeldError("host:7:ab", 20.0)
    daemon.cycles()
    assert (daemon.app.cycles, daemon.postponed) == (1, [20 + LEASE / 3])
    daemon.cycles()
    assert (daemon.app.cycles, daemon.postponed) == (1, [20 + LEASE / 3] * 2)
    assert caplog.messages == ["standing by: host:7:ab leads and runs the cycles"]


def test_standby_daemon_takes_over_a_released_lease(caplog: pytest.LogCaptureFixture) -> None:
    """With a cycle at once; when it loses the lease it stands by again."""
    daemon = Jobs()
    daemon.app.lease.other = LeaseHeldError("host:7:ab", 20.0)
    daemon.cycles()
    daemon.cycles()
    daemon.app.lease.other = None
    daemon.cycles()
    assert daemon.app.cycles == 2
    assert caplog.messages[1:] == ["leads now and runs the cycles"]
    daemon.app.lease.other, daemon.app.lease.held = LeaseHeldError("host:8:cd", 20.0), False
    daemon.cycles()
    assert daemon.app.cycles == 2
    assert caplog.messages[2:] == ["standing by: host:8:cd leads and runs the cycles"]


def test_standby_daemon_reports_no_recovery(caplog: pytest.LogCaptureFixture) -> None:
    """It has not run a cycle since the failure."""
    daemon = Jobs()
    daemon.app.results = [failed("MongoDB does not answer")]
    daemon.cycles()
    daemon.app.lease.other = LeaseHeldError("host:7:ab", 20.0)
    daemon.cycles()
    assert "recovered" not in caplog.messages


def test_leader_lease_is_released_when_the_daemon_ends() -> None:
    """So that the next daemon need not wait."""
    daemon = Jobs()
    daemon.cycles()
    assert daemon.app.lease.held
    daemon.cycles.close()
    assert (daemon.app.lease.held, daemon.app.closed) == (False, True)


def reconciling() -> tuple[Jobs, Job, FakeApp]:
    """A daemon that reconciles every 100 s, its job for that, and the application of the job."""
    daemon = Jobs(reconcile={"interval_seconds": 100})
    job = daemon.jobs[f"{NAME}, reconciliation"]
    return daemon, job, cast("FakeApp", job.app)


def test_only_the_leader_reconciles(caplog: pytest.LogCaptureFixture) -> None:
    daemon, job, app = reconciling()
    app.results = [VerifyReport(NAME, missing=2, repaired=2)]
    job()
    assert caplog.messages == []
    daemon.cycles()
    job()
    assert caplog.messages == ["0 different, 2 missing, 0 orphaned, 2 repaired"]


def test_due_reconciliation_runs_without_an_interval(caplog: pytest.LogCaptureFixture) -> None:
    """After the cycle that finds keys to repair."""
    daemon = Jobs()
    job = daemon.jobs[f"{NAME}, reconciliation"]
    app = cast("FakeApp", job.app)
    app.results = [VerifyReport(NAME, missing=2, repaired=2)]
    daemon.cycles()
    job()
    assert (daemon.postponed, caplog.messages) == ([], [])
    daemon.app.due = app.due = True
    daemon.cycles()
    assert daemon.postponed == [0]
    job()
    job()
    assert caplog.messages == ["0 different, 2 missing, 0 orphaned, 2 repaired"]


def test_failed_reconciliation_is_repeated_until_it_verifies(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Only then it has recovered."""
    daemon, job, app = reconciling()
    daemon.cycles()
    app.results = [
        TransientError("MongoDB does not answer"),
        LeaseHeldError("h:1:a", 9.0),
        VerifyReport(NAME),
    ]
    job()
    assert (daemon.postponed, caplog.messages) == ([5], ["MongoDB does not answer"])
    job()
    assert "recovered" not in caplog.messages
    job()
    assert caplog.messages[1:] == ["recovered"]


def test_outage_is_logged_in_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    """A failing server causes several errors. Every retry is counted, and a new outage is logged again."""
    daemon = Jobs()
    for number in range(1000):
        daemon.app.on_retry(RedisUnavailable(f"Redis does not answer: {number % 100}"))
    assert len(caplog.messages) == 5
    assert samples(daemon.metrics)["etl_retries_total", NAME] == 1000
    daemon.cycles()
    daemon.app.on_retry(RedisUnavailable("Redis does not answer: 0"))
    assert caplog.messages[5:] == ["recovered", "Redis does not answer: 0"]


def test_cycle_under_the_lease_of_another_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and not retried at once."""
    daemon = Jobs()
    daemon.app.results = [Report(NAME).failed("being synced by here:1", 75, "locked")]
    daemon.cycles()
    assert (caplog.messages, daemon.postponed) == (["being synced by here:1"], [])
    assert samples(daemon.metrics)["etl_cycles_total", NAME, "locked"] == 1


def test_cycle_longer_than_its_interval_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    daemon = Jobs()
    daemon.app.results = [Report(NAME, sync_duration_ms=700_000)]
    daemon.cycles()
    assert caplog.messages == ["the cycle took 700.0 s, longer than its interval of 660 s"]


@pytest.mark.parametrize("end", [Interrupted("stopped"), Report(NAME).failed("stopped", 130)])
def test_stop_is_no_failure(end: Result, caplog: pytest.LogCaptureFixture) -> None:
    """It is neither logged, counted nor retried, and reports no recovery."""
    daemon = Jobs()
    daemon.app.on_retry(RedisUnavailable("away"))
    daemon.app.results = [end]
    daemon.cycles()
    assert (caplog.messages, daemon.postponed) == (["away"], [])
    assert samples(daemon.metrics)["etl_cycles_total", NAME, "failed"] == 0


def test_unexpected_error_does_not_end_the_daemon(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged in one line without its message, and the cycle is retried."""
    daemon = Jobs()
    daemon.app.results = [ValueError("hunter2")]
    daemon.cycles()
    [line] = caplog.messages
    assert line.startswith("unforeseen ValueError in test_jobs.py:")
    assert daemon.postponed == [5]
    assert samples(daemon.metrics)["etl_cycles_total", NAME, "failed"] == 1


def test_failure_is_counted_once() -> None:
    daemon = Jobs()
    daemon.app.results = [failed(), RedisUnavailable("Redis does not answer")]
    daemon.cycles()
    daemon.cycles()
    assert samples(daemon.metrics)["etl_cycles_total", NAME, "failed"] == 2


def test_outage_after_a_cycle_does_not_make_it_fail(caplog: pytest.LogCaptureFixture) -> None:
    """The cycle counts as successful; the outage is logged, and both servers are probed again soon."""
    daemon = Jobs()
    daemon.app.due = RedisUnavailable("Redis does not answer")
    daemon.cycles()
    counts = samples(daemon.metrics)
    assert counts["etl_cycles_total", NAME, "ok"] == 1
    assert counts.get(("etl_cycles_total", NAME, "failed"), 0) == 0
    assert caplog.messages == ["Redis does not answer"]
    assert daemon.postponed == [5]


def test_failed_refresh_is_retried_soon() -> None:
    """Before the family expires. Both outcomes are counted."""
    daemon = Jobs()
    refreshes = daemon.jobs[FAMILY]
    cast("FakeApp", refreshes.app).results = [ConfigurationError("refused"), Report(NAME)]
    refreshes()
    assert daemon.postponed == [5]
    refreshes()
    found = samples(daemon.metrics)
    assert found["etl_refreshes_total", FAMILY, "failed"] == 1
    assert found["etl_refreshes_total", FAMILY, "ok"] == 1
    assert found["etl_entries_written_total", FAMILY] == 1


def test_every_run_has_its_own_id() -> None:
    """It is in every line of the log."""
    fields = [Jobs().cycles.log_fields() for _ in range(100)]
    assert {field["collection"] for field in fields} == {NAME}
    assert len({field["cycle"] for field in fields}) == 100
