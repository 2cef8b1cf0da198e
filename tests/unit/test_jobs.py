"""When a job comes back, and what it says meanwhile, on an application that does as it is told."""

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
    """The leader lease: this daemon's, unless another holder and its remaining seconds are given."""

    def __init__(self) -> None:
        self.other: LeaseHeldError | None = None
        self.held = False
        self.released = 0

    def acquire(self) -> None:
        """Take it."""
        if self.other:
            raise self.other
        self.held = True

    def release(self) -> None:
        """Give it back."""
        self.released += self.held
        self.held = False


class FakeApp:
    """Carries out what it was told, one result a run; the last one again and again."""

    def __init__(self, on_retry: Callable[[TransientError], None]) -> None:
        self.on_retry = on_retry
        self.results: list[Result] = [Report(NAME)]
        self.servers_away: dict[str, str] = {}
        self.lease = FakeLease()
        self.closed = False
        self.cycles = 0
        self.due: bool | EtlError = False

    def leader_lease(self, _: str) -> FakeLease:
        """As it was told."""
        return self.lease

    def close(self) -> None:
        """Nothing more."""
        self.closed = True

    def reconciliation_due(self, _: str) -> bool:
        """As it was told."""
        if isinstance(self.due, EtlError):
            raise self.due
        return self.due

    def reconcile(self, _: str) -> VerifyReport | None:
        """One reconciliation; after it none is due."""
        self.due = False
        return cast("VerifyReport | None", self._next())

    def sync(self, _: list[str]) -> Iterator[Report]:
        """One cycle."""
        self.cycles += 1
        yield cast("Report", self._next())

    def refresh(self, family: str) -> RefreshReport:
        """One refresh."""
        self._next()
        return RefreshReport(family, None, written=1)

    def away(self) -> dict[str, str]:
        """As it was told."""
        return self.servers_away

    def _next(self) -> Result:
        result = self.results.pop(0) if len(self.results) > 1 else self.results[0]
        if isinstance(result, Exception):
            raise result
        return result


class Desk:
    """The jobs of a daemon with default settings, and what they asked for."""

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
def _informed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "etl")


def failed(text: str = "MongoDB does not answer") -> Report:
    """A cycle that failed."""
    return Report(NAME).failed(text, 1)


def test_each_collection_and_refreshed_family_has_a_job() -> None:
    """At their intervals."""
    settings = {
        "collections": [{"name": "a"}, {"name": "b"}],
        "families": {"config:api": {"refresh_seconds": 9}},
    }
    desk = Desk(**settings)
    assert {task: job.seconds for task, job in desk.jobs.items()} == {
        "a": CYCLE,
        "b": CYCLE,
        "config:api": 9,
        FAMILY: 240,
        "a, reconciliation": CYCLE,
        "b, reconciliation": CYCLE,
    }
    assert len({id(job.app) for job in desk.jobs.values()}) == 6


def test_a_cycle_is_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    """It is counted, and told where it did something; the next one comes when it is due."""
    desk = Desk()
    desk.cycles()
    assert caplog.messages == []
    desk.app.results = [Report(NAME, records_processed=3)]
    desk.cycles()
    assert caplog.messages == ["3 processed, 0 dead letters, 0 deferred, 0 unreachable in 0 ms"]
    assert desk.postponed == []
    assert samples(desk.metrics)["etl_cycles_total", NAME, "ok"] == 2


def test_after_an_outage_a_cycle_starts_before_the_next_interval(caplog: pytest.LogCaptureFixture) -> None:
    """It looks every few seconds whether both servers answer, without a cycle; each is told once."""
    desk = Desk()
    desk.app.results = [failed(), Report(NAME)]
    desk.app.servers_away = {"redis": "Redis does not answer", "mongodb": "MongoDB does not answer"}
    for _ in range(4):
        desk.cycles()
    assert (desk.app.cycles, desk.postponed) == (1, [5, 5, 5, 5])
    desk.app.servers_away = {}
    desk.cycles()
    assert (desk.app.cycles, desk.postponed) == (2, [5, 5, 5, 5])
    assert caplog.messages == ["MongoDB does not answer", "Redis does not answer", "recovered"]


def test_a_failure_while_both_servers_answer_is_retried_once_per_interval() -> None:
    """At once a second time; each time another daemon may lead, which may fare better."""
    desk = Desk()
    desk.app.results = [failed("the checkpoint would have gone backwards")]
    desk.cycles()
    desk.cycles()
    assert desk.postponed == [5, CYCLE]
    assert desk.app.lease.released == 2
    desk.cycles()
    assert desk.postponed[2:] == [5]


def test_a_retry_never_comes_later_than_the_next_run() -> None:
    """The next run is soon enough."""
    desk = Desk(schedule={"cycle_seconds": 2})
    desk.app.results = [failed()]
    desk.app.servers_away = {"redis": "away"}
    desk.cycles()
    desk.cycles()
    assert desk.postponed == []


def test_a_daemon_without_the_leader_lease_stands_by(caplog: pytest.LogCaptureFixture) -> None:
    """It says so once, and comes back when the leader's lease would end. Its first cycle it runs at once."""
    desk = Desk()
    desk.app.lease.other = LeaseHeldError("host:7:ab", 20.0)
    desk.cycles()
    assert (desk.app.cycles, desk.postponed) == (1, [20 + LEASE / 3])
    desk.cycles()
    assert (desk.app.cycles, desk.postponed) == (1, [20 + LEASE / 3] * 2)
    assert caplog.messages == ["standing by: host:7:ab leads and runs the cycles"]


def test_a_standby_daemon_takes_over_from_a_leader_that_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    """It says so, and runs a cycle at once; what it does not lead any more it stands by for again."""
    desk = Desk()
    desk.app.lease.other = LeaseHeldError("host:7:ab", 20.0)
    desk.cycles()
    desk.cycles()
    desk.app.lease.other = None
    desk.cycles()
    assert desk.app.cycles == 2
    assert caplog.messages[1:] == ["leads now and runs the cycles"]
    desk.app.lease.other, desk.app.lease.held = LeaseHeldError("host:8:cd", 20.0), False
    desk.cycles()
    assert desk.app.cycles == 2
    assert caplog.messages[2:] == ["standing by: host:8:cd leads and runs the cycles"]


def test_a_standby_daemon_reports_no_recovery(caplog: pytest.LogCaptureFixture) -> None:
    """What failed has not been seen to work again."""
    desk = Desk()
    desk.app.results = [failed("MongoDB does not answer")]
    desk.cycles()
    desk.app.lease.other = LeaseHeldError("host:7:ab", 20.0)
    desk.cycles()
    assert "recovered" not in caplog.messages


def test_the_leader_lease_is_released_when_the_daemon_ends() -> None:
    """So that the next one need not wait."""
    desk = Desk()
    desk.cycles()
    assert desk.app.lease.held
    desk.cycles.close()
    assert (desk.app.lease.held, desk.app.closed) == (False, True)


def reconciling() -> tuple[Desk, Job, FakeApp]:
    """A daemon that reconciles every 100 s, and the job that does."""
    desk = Desk(reconcile={"interval_seconds": 100})
    job = desk.jobs[f"{NAME}, reconciliation"]
    return desk, job, cast("FakeApp", job.app)


def test_only_the_leader_reconciles(caplog: pytest.LogCaptureFixture) -> None:
    """So several daemons reconcile once an interval."""
    desk, job, app = reconciling()
    app.results = [VerifyReport(NAME, missing=2, repaired=2)]
    job()
    assert caplog.messages == []
    desk.cycles()
    job()
    assert caplog.messages == ["0 different, 2 missing, 0 orphaned, 2 repaired"]


def test_a_due_repair_runs_without_an_interval(caplog: pytest.LogCaptureFixture) -> None:
    """After the cycle that has left something to repair, or that has found it left by another run."""
    desk = Desk()
    job = desk.jobs[f"{NAME}, reconciliation"]
    app = cast("FakeApp", job.app)
    app.results = [VerifyReport(NAME, missing=2, repaired=2)]
    desk.cycles()
    job()
    assert (desk.postponed, caplog.messages) == ([], [])
    desk.app.due = app.due = True
    desk.cycles()
    assert desk.postponed == [0]
    job()
    job()
    assert caplog.messages == ["0 different, 2 missing, 0 orphaned, 2 repaired"]


def test_a_failed_reconciliation_is_repeated_when_the_servers_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As other jobs do; it is well again only once it has verified."""
    desk, job, app = reconciling()
    desk.cycles()
    app.results = [
        TransientError("MongoDB does not answer"),
        LeaseHeldError("h:1:a", 9.0),
        VerifyReport(NAME),
    ]
    job()
    assert (desk.postponed, caplog.messages) == ([5], ["MongoDB does not answer"])
    job()
    assert "recovered" not in caplog.messages
    job()
    assert caplog.messages[1:] == ["recovered"]


def test_an_outage_is_logged_in_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    """A server that goes down complains in several ways; a new outage is told anew. Every retry counts."""
    desk = Desk()
    for number in range(1000):
        desk.app.on_retry(RedisUnavailable(f"Redis does not answer: {number % 100}"))
    assert len(caplog.messages) == 5
    assert samples(desk.metrics)["etl_retries_total", NAME] == 1000
    desk.cycles()
    desk.app.on_retry(RedisUnavailable("Redis does not answer: 0"))
    assert caplog.messages[5:] == ["recovered", "Redis does not answer: 0"]


def test_a_cycle_under_the_lease_of_another_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    """It is told, and not tried again at once."""
    desk = Desk()
    desk.app.results = [Report(NAME).failed("being synced by here:1", 75, "locked")]
    desk.cycles()
    assert (caplog.messages, desk.postponed) == (["being synced by here:1"], [])
    assert samples(desk.metrics)["etl_cycles_total", NAME, "locked"] == 1


def test_a_cycle_that_outlasts_its_interval_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """By how long it took."""
    desk = Desk()
    desk.app.results = [Report(NAME, sync_duration_ms=700_000)]
    desk.cycles()
    assert caplog.messages == ["the cycle took 700.0 s, longer than its interval of 660 s"]


@pytest.mark.parametrize("end", [Interrupted("stopped"), Report(NAME).failed("stopped", 130)])
def test_a_stop_is_no_failure(end: Result, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is said, counted or tried again; an outage before it is not over by it."""
    desk = Desk()
    desk.app.on_retry(RedisUnavailable("away"))
    desk.app.results = [end]
    desk.cycles()
    assert (caplog.messages, desk.postponed) == (["away"], [])
    assert samples(desk.metrics)["etl_cycles_total", NAME, "failed"] == 0


def test_an_unexpected_error_does_not_end_the_daemon(caplog: pytest.LogCaptureFixture) -> None:
    """One line, without its message; it is tried again."""
    desk = Desk()
    desk.app.results = [ValueError("hunter2")]
    desk.cycles()
    [line] = caplog.messages
    assert line.startswith("unforeseen ValueError in test_jobs.py:")
    assert desk.postponed == [5]
    assert samples(desk.metrics)["etl_cycles_total", NAME, "failed"] == 1


def test_every_failure_is_counted_once() -> None:
    """With a report or without one."""
    desk = Desk()
    desk.app.results = [failed(), RedisUnavailable("Redis does not answer")]
    desk.cycles()
    desk.cycles()
    assert samples(desk.metrics)["etl_cycles_total", NAME, "failed"] == 2


def test_an_outage_of_redis_after_a_cycle_does_not_make_it_fail(caplog: pytest.LogCaptureFixture) -> None:
    """It is counted once, as the cycle that went well; the outage is told, and both servers are asked again soon."""
    desk = Desk()
    desk.app.due = RedisUnavailable("Redis does not answer")
    desk.cycles()
    counts = samples(desk.metrics)
    assert counts["etl_cycles_total", NAME, "ok"] == 1
    assert counts.get(("etl_cycles_total", NAME, "failed"), 0) == 0
    assert caplog.messages == ["Redis does not answer"]
    assert desk.postponed == [5]


def test_a_refresh_that_fails_is_tried_again_before_the_family_expires() -> None:
    """And counted either way."""
    desk = Desk()
    refreshes = desk.jobs[FAMILY]
    cast("FakeApp", refreshes.app).results = [ConfigurationError("refused"), Report(NAME)]
    refreshes()
    assert desk.postponed == [5]
    refreshes()
    found = samples(desk.metrics)
    assert found["etl_refreshes_total", FAMILY, "failed"] == 1
    assert found["etl_refreshes_total", FAMILY, "ok"] == 1
    assert found["etl_entries_written_total", FAMILY] == 1


def test_every_run_has_an_id_of_its_own() -> None:
    """It is in every line of it."""
    fields = [Desk().cycles.log_fields() for _ in range(100)]
    assert {field["collection"] for field in fields} == {NAME}
    assert len({field["cycle"] for field in fields}) == 100
