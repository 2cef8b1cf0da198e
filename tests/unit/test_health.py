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
def test_readiness(snapshot: HealthSnapshot, problem: str | None) -> None:
    """Both servers answer, and each collection had a success in two cycles; else the one reason why not."""
    found = snapshot.problems(CYCLE)
    assert len(found) == (problem is not None)
    assert problem is None or problem in found[0]


def test_a_snapshot_of_servers_that_answer() -> None:
    """It is the status; what MongoDB says of a collection is no word on the server."""
    assert take_snapshot(FakeHealthSource(status())) == HealthSnapshot([status()])
    refused = status(error="MongoDB refuses", lag_seconds=None)
    found = take_snapshot(FakeHealthSource(refused, status(collection="b", error="MongoDB refuses")))
    assert (found.away, found.problems(CYCLE)) == ({}, ["MongoDB refuses"])


def test_a_snapshot_without_mongodb() -> None:
    """What Redis knows is told, and the one reason once."""
    away = status(error="MongoDB does not answer", lag_seconds=None)
    found = take_snapshot(FakeHealthSource(away, away={"mongodb": "MongoDB does not answer"}))
    assert (found.collections, found.error) == ([away], None)
    assert found.problems(CYCLE) == ["MongoDB does not answer"]


def test_a_mongodb_that_is_away_is_not_asked_again() -> None:
    """A request waits for MongoDB only once: the status gives the reason."""
    source = FakeHealthSource(status(), away={"mongodb": "MongoDB does not answer"})
    take_snapshot(source)
    assert source.mongodb_away == "MongoDB does not answer"


def test_waiting_requests_are_answered_when_the_daemon_stops() -> None:
    """Closing returns at once while a server does not answer, and later requests do not wait."""
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


def test_a_snapshot_without_redis() -> None:
    """Both are told where both are away, and Redis is waited for once."""
    away = {"redis": "Redis does not answer", "mongodb": "MongoDB does not answer"}
    source = FakeHealthSource(away=away)
    found = take_snapshot(source)
    assert (found.error, found.away, source.asked) == ("Redis does not answer", away, 0)
    assert found.problems(CYCLE) == list(away.values())


def test_redis_may_go_away_during_a_snapshot() -> None:
    """The same."""
    found = take_snapshot(FakeHealthSource(RedisUnavailable("Redis does not answer")))
    assert (found.error, found.problems(CYCLE)) == ("Redis does not answer", ["Redis does not answer"])


def test_an_unexpected_error_does_not_stop_the_monitor() -> None:
    """It is told without its message."""
    found = take_snapshot(FakeHealthSource(ValueError("hunter2")))
    assert found.error is not None
    assert found.error.startswith("unforeseen ValueError in statuses.py")
    assert found.problems(CYCLE) == [found.error]


def test_concurrent_requests_share_one_snapshot() -> None:
    """Fifty scrapes of a server that takes its time are one, in one thread."""
    looks: list[str] = []

    def slow() -> HealthSnapshot:
        looks.append(threading.current_thread().name)
        time.sleep(0.3)
        return HealthSnapshot([status()])

    async def ask() -> list[HealthSnapshot]:
        health = SnapshotCache(slow, HealthSnapshot())
        return await asyncio.gather(*(health.current() for _ in range(50)))

    assert asyncio.run(ask()) == [HealthSnapshot([status()])] * 50
    assert len(looks) == 1


def test_a_snapshot_is_reused_for_a_while() -> None:
    """Then it is a new one; the loop is not held up by a look."""
    numbers = iter(range(10))

    def new() -> HealthSnapshot:
        return HealthSnapshot([one_more(next(numbers))])

    async def ask() -> list[int]:
        health = SnapshotCache(new, HealthSnapshot(), 0.2)
        found = [await health.current(), await health.current()]
        await asyncio.sleep(0.25)
        found.append(await health.current())
        return [snapshot.collections[0].dead_letters for snapshot in found]

    assert asyncio.run(ask()) == [0, 0, 1]


def one_more(number: int) -> CollectionStatus:
    """A status to be told from others."""
    return status(dead_letters=number)
