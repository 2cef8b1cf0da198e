from datetime import timedelta

import pytest
from apscheduler.events import EVENT_JOB_MAX_INSTANCES, EVENT_JOB_SUBMITTED, JobSubmissionEvent

from etl.daemon.misfires import MisfireListener
from etl.daemon.schedule import monotonic_now
from etl.monitoring.metrics import Metrics
from etl.settings import Settings
from tests.unit.test_metrics import samples

TASK = "promptContent"


@pytest.fixture
def metrics() -> Metrics:
    """The metrics with the counts."""
    return Metrics(Settings())


@pytest.fixture
def listener(metrics: Metrics) -> MisfireListener:
    """A listener for a task every ten seconds."""
    return MisfireListener({TASK: 10.0}, metrics)


def run(ago: float, code: int = EVENT_JOB_SUBMITTED) -> JobSubmissionEvent:
    """A run that was due `ago` seconds ago."""
    return JobSubmissionEvent(code, TASK, "default", [monotonic_now() - timedelta(seconds=ago)])


def counts(metrics: Metrics) -> tuple[float, float]:
    """The counts of skipped and of late runs."""
    found = samples(metrics)
    return found["etl_skipped_runs_total", TASK], found["etl_late_runs_total", TASK]


def test_runs_on_time_are_not_logged(
    metrics: Metrics, listener: MisfireListener, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor are runs a few seconds early or late."""
    for ahead in (0.0, 10.0, 16.0, 28.0):
        listener(run(-ahead))
    assert counts(metrics) == (0, 0)
    assert caplog.messages == []


def test_late_run_is_counted_and_logged(
    metrics: Metrics, listener: MisfireListener, caplog: pytest.LogCaptureFixture
) -> None:
    listener(run(3.2))
    assert counts(metrics) == (0, 1)
    assert "promptContent: a run began 3.2 s late" in caplog.text


def test_run_is_skipped_while_the_previous_one_is_running(
    metrics: Metrics, listener: MisfireListener, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is counted as skipped and not as late; the first in a row is logged."""
    listener(run(30))
    listener(run(20, EVENT_JOB_MAX_INSTANCES))
    listener(run(10, EVENT_JOB_MAX_INSTANCES))
    assert counts(metrics) == (2, 1)
    assert caplog.text.count("skipped 1: the previous run was still in progress") == 1
    listener(run(0))
    listener(run(-10, EVENT_JOB_MAX_INSTANCES))
    assert counts(metrics) == (3, 1)
    assert caplog.text.count("skipped 1: the previous run was still in progress") == 2


def test_runs_due_while_the_process_was_suspended_are_skipped(
    metrics: Metrics, listener: MisfireListener, caplog: pytest.LogCaptureFixture
) -> None:
    """The scheduler merges them into one run."""
    listener(run(40))
    listener(run(0))
    assert counts(metrics)[0] == 3
    assert "skipped 3: the process was suspended" in caplog.text


@pytest.mark.parametrize("moved", ["before", "after"])
def test_rescheduled_run_is_not_skipped(
    metrics: Metrics, listener: MisfireListener, caplog: pytest.LogCaptureFixture, moved: str
) -> None:
    """A standby daemon postpones its next run; the listener may learn that before the run or after."""
    if moved == "before":
        listener.moved(TASK, monotonic_now() + timedelta(seconds=50))
    listener(run(0))
    if moved == "after":
        listener.moved(TASK, monotonic_now() + timedelta(seconds=50))
    listener(run(-50))
    assert counts(metrics) == (0, 0)
    assert caplog.messages == []
