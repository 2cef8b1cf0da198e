import asyncio
import threading
import time

import pytest

from etl.app import CollectionStatus
from etl.errors import RedisUnavailable
from etl.monitoring.health import Glance, Lookout, look
from tests.support.glances import FakeSight, status

CYCLE = 660


@pytest.mark.parametrize(
    ("glance", "problem"),
    [
        (Glance([status()]), None),
        (Glance([status(seconds_since_success=2 * CYCLE)]), None),
        (Glance([status(seconds_since_success=2 * CYCLE + 1)]), "did so 1321 s ago"),
        (Glance([status(), status(collection="b", seconds_since_success=None)]), "b: no cycle has finished"),
        (Glance([status()], {"mongodb": "MongoDB does not answer"}), "MongoDB does not answer"),
        (Glance((), {"redis": "Redis does not answer"}, "Redis does not answer"), "Redis does not answer"),
        (Glance((), {}, "Redis refuses"), "Redis refuses"),
    ],
)
def test_readiness(glance: Glance, problem: str | None) -> None:
    """Both servers answer, and each collection had a success in two cycles; else the one reason why not."""
    found = glance.problems(CYCLE)
    assert len(found) == (problem is not None)
    assert problem is None or problem in found[0]


def test_a_glance_at_what_answers() -> None:
    """It is the status; what MongoDB says of a collection is no word on the server."""
    assert look(FakeSight(status())) == Glance([status()])
    refused = status(error="MongoDB refuses", lag_seconds=None)
    found = look(FakeSight(refused, status(collection="b", error="MongoDB refuses")))
    assert (found.away, found.problems(CYCLE)) == ({}, ["MongoDB refuses"])


def test_a_glance_without_mongodb() -> None:
    """What Redis knows is told, and the one reason once."""
    away = status(error="MongoDB does not answer", lag_seconds=None)
    found = look(FakeSight(away, away={"mongodb": "MongoDB does not answer"}))
    assert (found.collections, found.error) == ([away], None)
    assert found.problems(CYCLE) == ["MongoDB does not answer"]


def test_a_mongodb_that_is_away_is_not_asked_again() -> None:
    """The status knows the reason already: whoever asks waits for MongoDB once."""
    sight = FakeSight(status(), away={"mongodb": "MongoDB does not answer"})
    look(sight)
    assert sight.mongodb_away == "MongoDB does not answer"


def test_those_who_wait_are_answered_when_the_daemon_stops() -> None:
    """At once, though a server keeps the look waiting; and nobody waits afterwards."""
    go_on = threading.Event()

    def stuck() -> Glance:
        go_on.wait(10)
        return Glance([status()])

    async def ask() -> list[str | None]:
        lookout = Lookout(stuck, Glance(error="stopping"))
        waiting = asyncio.gather(*(lookout.glance() for _ in range(3)))
        await asyncio.sleep(0.1)
        lookout.stop()
        async with asyncio.timeout(1):
            return [glance.error for glance in (*await waiting, await lookout.glance())]

    assert asyncio.run(ask()) == ["stopping"] * 4
    go_on.set()


def test_a_glance_without_redis() -> None:
    """Both are told where both are away, and Redis is waited for once."""
    away = {"redis": "Redis does not answer", "mongodb": "MongoDB does not answer"}
    sight = FakeSight(away=away)
    found = look(sight)
    assert (found.error, found.away, sight.asked) == ("Redis does not answer", away, 0)
    assert found.problems(CYCLE) == list(away.values())


def test_a_redis_that_goes_away_meanwhile() -> None:
    """The same."""
    found = look(FakeSight(RedisUnavailable("Redis does not answer")))
    assert (found.error, found.problems(CYCLE)) == ("Redis does not answer", ["Redis does not answer"])


def test_what_nobody_foresaw_does_not_blind_the_monitor() -> None:
    """It is told without its message."""
    found = look(FakeSight(ValueError("hunter2")))
    assert found.error is not None
    assert found.error.startswith("unforeseen ValueError in glances.py")
    assert found.problems(CYCLE) == [found.error]


def test_those_who_ask_together_share_one_look() -> None:
    """Fifty scrapes of a server that takes its time are one, in one thread."""
    looks: list[str] = []

    def slow() -> Glance:
        looks.append(threading.current_thread().name)
        time.sleep(0.3)
        return Glance([status()])

    async def ask() -> list[Glance]:
        lookout = Lookout(slow, Glance())
        return await asyncio.gather(*(lookout.glance() for _ in range(50)))

    assert asyncio.run(ask()) == [Glance([status()])] * 50
    assert len(looks) == 1


def test_a_glance_is_good_for_a_while() -> None:
    """Then it is a new one; the loop is not held up by a look."""
    numbers = iter(range(10))

    def new() -> Glance:
        return Glance([one_more(next(numbers))])

    async def ask() -> list[int]:
        lookout = Lookout(new, Glance(), 0.2)
        found = [await lookout.glance(), await lookout.glance()]
        await asyncio.sleep(0.25)
        found.append(await lookout.glance())
        return [glance.collections[0].dead_letters for glance in found]

    assert asyncio.run(ask()) == [0, 0, 1]


def one_more(number: int) -> CollectionStatus:
    """A status to be told from others."""
    return status(dead_letters=number)
