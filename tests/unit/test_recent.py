"""The recent past in `/history`."""

import pytest

from etl.errors import RedisUnavailable
from etl.monitoring.health import HealthSnapshot
from etl.monitoring.history import QueueLengths, Recent, recent
from tests.support.statuses import status
from tests.support.waiting import eventually


def test_queue_lengths_are_sampled() -> None:
    """Once for each queue, although several collections feed it; oldest first."""
    lengths = iter(range(100))

    def take() -> HealthSnapshot:
        queues = {"queue:ai_generation:alta": next(lengths)}
        return HealthSnapshot([status(queues=queues), status(collection="b", queues=queues)])

    queues = QueueLengths(take, seconds=0.01)
    queues.start()
    assert eventually(lambda: len(queues.samples().get("queue:ai_generation:alta", ())) >= 3)
    queues.stop()
    found = [length for _, length in queues.samples()["queue:ai_generation:alta"]]
    assert found == list(range(len(found)))


def test_outage_is_a_gap_in_the_samples() -> None:
    queues = QueueLengths(HealthSnapshot)
    queues.add(HealthSnapshot([status()]))
    queues.add(HealthSnapshot(error="Redis does not answer"))
    assert [length for _, length in queues.samples()["queue:ai_generation:alta"]] == [5]


def test_samples_of_the_last_six_hours_are_kept() -> None:
    queues = QueueLengths(HealthSnapshot)
    for _ in range(400):
        queues.add(HealthSnapshot([status()]))
    assert len(queues.samples()["queue:ai_generation:alta"]) == 360


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RedisUnavailable("Redis does not answer"), "Redis does not answer"),
        (KeyError("secret"), "unforeseen KeyError"),
    ],
)
def test_error_is_in_the_answer(error: Exception, expected: str) -> None:
    """An unexpected one without its message."""

    def read() -> list[dict[str, object]]:
        raise error

    found = recent(read)
    assert isinstance(found, Recent)
    assert (found.error or "").startswith(expected)
    assert "secret" not in str(found.error)
