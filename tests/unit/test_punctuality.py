from datetime import UTC, datetime, timedelta

import pytest
from apscheduler.events import EVENT_JOB_MAX_INSTANCES, EVENT_JOB_SUBMITTED, JobSubmissionEvent

from etl.daemon.misfires import Punctuality
from etl.monitoring.metrics import Metrics
from etl.settings import Settings
from tests.unit.test_metrics import samples

TASK = "promptContent"


@pytest.fixture
def metrics() -> Metrics:
    """Where it is counted."""
    return Metrics(Settings())


@pytest.fixture
def punctuality(metrics: Metrics) -> Punctuality:
    """A task every ten seconds."""
    return Punctuality({TASK: 10.0}, metrics)


def run(ago: float, code: int = EVENT_JOB_SUBMITTED) -> JobSubmissionEvent:
    """A run that was due so many seconds ago."""
    return JobSubmissionEvent(code, TASK, "default", [datetime.now(UTC) - timedelta(seconds=ago)])


def counts(metrics: Metrics) -> tuple[float, float]:
    """Skipped and late runs."""
    found = samples(metrics)
    return found["etl_skipped_runs_total", TASK], found["etl_late_runs_total", TASK]


def test_runs_in_time_are_not_worth_a_word(
    metrics: Metrics, punctuality: Punctuality, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor is one that was moved, to sooner or to a little later."""
    for ahead in (0.0, 10.0, 16.0, 28.0):
        punctuality(run(-ahead))
    assert counts(metrics) == (0, 0)
    assert caplog.messages == []


def test_a_late_run_is_counted_and_told(
    metrics: Metrics, punctuality: Punctuality, caplog: pytest.LogCaptureFixture
) -> None:
    """By how much."""
    punctuality(run(3.2))
    assert counts(metrics) == (0, 1)
    assert "promptContent: a run began 3.2 s late" in caplog.text


def test_a_run_that_finds_the_one_before_at_work_is_skipped(
    metrics: Metrics, punctuality: Punctuality, caplog: pytest.LogCaptureFixture
) -> None:
    """Each of them counts, the first in a row is told; it is not late, as it does not begin."""
    punctuality(run(30))
    punctuality(run(20, EVENT_JOB_MAX_INSTANCES))
    punctuality(run(10, EVENT_JOB_MAX_INSTANCES))
    assert counts(metrics) == (2, 1)
    assert caplog.text.count("skipped 1: still busy with the one before") == 1
    punctuality(run(0))
    punctuality(run(-10, EVENT_JOB_MAX_INSTANCES))
    assert counts(metrics) == (3, 1)
    assert caplog.text.count("skipped 1: still busy with the one before") == 2


def test_runs_that_fell_due_while_the_process_slept_are_skipped(
    metrics: Metrics, punctuality: Punctuality, caplog: pytest.LogCaptureFixture
) -> None:
    """The scheduler makes one run of all of them."""
    punctuality(run(40))
    punctuality(run(0))
    assert counts(metrics)[0] == 3
    assert "skipped 3: the process was not running" in caplog.text
