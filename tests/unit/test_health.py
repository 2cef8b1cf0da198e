import asyncio
import threading
import time

import pytest

from etl.app import CollectionStatus
from etl.errors import RedisUnavailable
from etl.monitoring.health import HealthSnapshot, SnapshotCache, take_snapshot
from tests.support.statuses import FakeHealthSource, status

CYCLE = 660


@pytest.mark.parametrize(
    ("snapshot", "problem"),
    [
        (HealthSnapshot([status()]), None),
        (HealthSnapshot([status(seconds_since_success=2 * CYCLE)]), None),
        (HealthSnapshot([status(seconds_since_success=2 * CYCLE + 1)]), "did so 1321 s ago"),
        (
            HealthSnapshot([status(), status(collection="b", seconds_since_success=None)]),
            "b: no cycle has finished",
        ),
        (HealthSnapshot([status()], {"mongodb": "MongoDB does not answer"}), "MongoDB does not answer"),
        (
            HealthSnapshot((), {"redis": "Redis does not answer"}, "Redis does not answer"),
            "Redis does not answer",
        ),
        (HealthSnapshot((), {}, "Redis refuses"), "Redis refuses"),
    ],
)
def test_snapshot_names_the_problem(snapshot: HealthSnapshot, problem: str | None) -> None:
    """None if both servers answer, and each collection had a success within two cycles."""
    found = snapshot.problems(CYCLE)
    assert len(found) == (problem is not None)
    assert problem is None or problem in found[0]


def test_snapshot_has_the_status_if_both_servers_answer() -> None:
    """An error of one collection does not mean that MongoDB is unavailable."""
    assert take_snapshot(FakeHealthSource(status())) == HealthSnapshot([status()])
    refused = status(error="MongoDB refuses", lag_seconds=None)
    found = take_snapshot(FakeHealthSource(refused, status(collection="b", error="MongoDB refuses")))
    assert (found.away, found.problems(CYCLE)) == ({}, ["MongoDB refuses"])


def test_snapshot_without_mongodb_has_the_status_of_redis() -> None:
    """The reason is reported once."""
    away = status(error="MongoDB does not answer", lag_seconds=None)
    found = take_snapshot(FakeHealthSource(away, away={"mongodb": "MongoDB does not answer"}))
    assert (found.collections, found.error) == ([away], None)
    assert found.problems(CYCLE) == ["MongoDB does not answer"]


def test_unavailable_mongodb_is_not_asked_again() -> None:
    """The status gets the reason, so that a request waits only once."""
    source = FakeHealthSource(status(), away={"mongodb": "MongoDB does not answer"})
    take_snapshot(source)
    assert source.mongodb_away == "MongoDB does not answer"


def test_stop_answers_waiting_and_later_requests() -> None:
    """At once, although a server does not answer."""
    go_on = threading.Event()

    def stuck() -> HealthSnapshot:
        go_on.wait(10)
        return HealthSnapshot([status()])

    async def ask() -> list[str | None]:
        health = SnapshotCache(stuck, HealthSnapshot(error="stopping"))
        waiting = asyncio.gather(*(health.current() for _ in range(3)))
        await asyncio.sleep(0.1)
        health.stop()
        async with asyncio.timeout(1):
            return [snapshot.error for snapshot in (*await waiting, await health.current())]

    assert asyncio.run(ask()) == ["stopping"] * 4
    go_on.set()


def test_snapshot_without_redis_and_mongodb_names_both() -> None:
    """Redis is waited for once."""
    away = {"redis": "Redis does not answer", "mongodb": "MongoDB does not answer"}
    source = FakeHealthSource(away=away)
    found = take_snapshot(source)
    assert (found.error, found.away, source.asked) == ("Redis does not answer", away, 0)
    assert found.problems(CYCLE) == list(away.values())


def test_redis_may_become_unavailable_during_a_snapshot() -> None:
    found = take_snapshot(FakeHealthSource(RedisUnavailable("Redis does not answer")))
    assert (found.error, found.problems(CYCLE)) == ("Redis does not answer", ["Redis does not answer"])


def test_unexpected_error_is_in_the_snapshot_without_its_message() -> None:
    found = take_snapshot(FakeHealthSource(ValueError("hunter2")))
    assert found.error is not None
    assert found.error.startswith("unforeseen ValueError in statuses.py")
    assert found.problems(CYCLE) == [found.error]


def test_concurrent_requests_share_one_snapshot() -> None:
    """Fifty scrapes of a slow server use one thread."""
    threads: list[str] = []

    def slow() -> HealthSnapshot:
        threads.append(threading.current_thread().name)
        time.sleep(0.3)
        return HealthSnapshot([status()])

    async def ask() -> list[HealthSnapshot]:
        health = SnapshotCache(slow, HealthSnapshot())
        return await asyncio.gather(*(health.current() for _ in range(50)))

    assert asyncio.run(ask()) == [HealthSnapshot([status()])] * 50
    assert len(threads) == 1


def test_snapshot_is_reused_until_it_is_too_old() -> None:
    """Then a new one is taken."""
    numbers = iter(range(10))

    def new() -> HealthSnapshot:
        return HealthSnapshot([numbered(next(numbers))])

    async def ask() -> list[int]:
        health = SnapshotCache(new, HealthSnapshot(), 0.2)
        found = [await health.current(), await health.current()]
        await asyncio.sleep(0.25)
        found.append(await health.current())
        return [snapshot.collections[0].dead_letters for snapshot in found]

    assert asyncio.run(ask()) == [0, 0, 1]


def numbered(number: int) -> CollectionStatus:
    """A distinguishable status."""
    return status(dead_letters=number)
