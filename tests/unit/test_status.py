from typing import Any

import pytest

from etl.cache.keys import StateKeys, state_keys
from etl.checkpoint.history import History
from etl.cli.status import duration
from etl.errors import CycleFailed, EtlError, TransientError
from etl.monitoring.status import read_status
from schemas.position import Position


class EmptyRedis:
    """A Redis without keys."""

    def exchange(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        return [self._answer(*command) for command in commands]

    def _answer(self, name: str, *words: Any) -> Any:
        nothing: dict[str, Any] = {"HGETALL": [], "HLEN": 0, "GET": None, "HMGET": [None] * (len(words) - 1)}
        nothing |= {"HSCAN": ["0", []], "SMEMBERS": [], "LRANGE": [], "TIME": ["1700000000", "0"]}
        return nothing[name]


class FakeReader:
    """Returns the lag or raises an error, and counts the calls."""

    def __init__(self, fault: EtlError | None = None, waits: float = 0.0) -> None:
        self._fault = fault
        self._waits = waits
        self.asked = 0

    def ping(self) -> None:
        self.asked += 1
        if self._fault is not None:
            raise self._fault

    def waited(self, _: Position) -> float:
        self.ping()
        return self._waits

    def count(self) -> int:
        return 400


def sources(names: str, readers: list[FakeReader]) -> list[tuple[str, StateKeys, FakeReader]]:
    """The arguments of `read_status` for collections with these names."""
    return [(name, state_keys(name), reader) for name, reader in zip(names, readers, strict=True)]


def test_unreachable_mongodb_is_asked_once() -> None:
    """For the first of several collections. Each one has the error."""
    readers = [FakeReader(TransientError("MongoDB does not answer")) for _ in range(3)]

    found = read_status(EmptyRedis(), sources("abc", readers), 660)  # type: ignore[arg-type]

    assert [source.asked for source in readers] == [1, 0, 0]
    assert [one.error for one in found] == ["MongoDB does not answer"] * 3
    assert [one.lag_seconds for one in found] == [None] * 3


def test_mongodb_known_to_be_unreachable_is_not_asked() -> None:
    """The known error is in the status."""
    source = FakeReader()

    [one] = read_status(EmptyRedis(), sources("a", [source]), 660, "MongoDB does not answer")  # type: ignore[arg-type]

    assert (source.asked, one.error) == (0, "MongoDB does not answer")


def test_error_of_one_collection_does_not_affect_others() -> None:
    readers = [FakeReader(CycleFailed("no such thing")), FakeReader()]

    found = read_status(EmptyRedis(), sources("ab", readers), 660)  # type: ignore[arg-type]

    assert [one.error for one in found] == ["no such thing", None]


def test_unknown_values_are_none_before_the_first_cycle() -> None:
    """Counts are zero."""
    [one] = read_status(EmptyRedis(), sources("a", [FakeReader()]), 660)  # type: ignore[arg-type]
    unknown = (one.last_id, one.last_timestamp, one.lag_seconds, one.last_cycle, one.seconds_since_success)
    assert set(unknown) == {None}
    assert (one.next_cycle, one.unreachable, one.lease_holder) == (None, None, None)
    assert (one.dead_letters, one.dead_letters_beyond, one.deferred_count, one.queues) == (0, 0, 0, {})
    assert (one.leader, one.scans, one.reconciliation, one.follow) == (None, [], None, None)


class FollowedRedis(EmptyRedis):
    """An empty Redis, except for the state of a follower and a watermark."""

    def __init__(self, caught_up: str | None, holder: str | None) -> None:
        self._replies = {"HMGET": ["1699999990.0", caught_up], "HGETALL": ["mongo_clock", "1699990000000"]}
        self._holder = holder

    def _answer(self, name: str, *words: Any) -> Any:
        if name == "GET" and words == (state_keys("a").follow_lease,):
            return self._holder
        return self._replies.get(name) or super()._answer(name, *words)


@pytest.mark.parametrize(
    ("caught_up", "holder", "state", "lag", "of_collection"),
    [
        ("1", "h", "following", 0.0, 0.0),
        ("0", "h", "behind", 10.0, 10.0),
        ("", "h", "starting", None, 7.0),
        (None, "h", "starting", None, 7.0),
        ("1", None, "stopped", None, 7.0),
        ("0", None, "stopped", None, 7.0),
    ],
)
def test_lag_of_a_followed_collection_is_that_of_its_follower(
    caught_up: str | None, holder: str | None, state: str, lag: float | None, of_collection: float
) -> None:
    """If it is known; otherwise that of the cycles."""
    source = FakeReader(waits=7.0)
    [one] = read_status(FollowedRedis(caught_up, holder), sources("a", [source]), 660)  # type: ignore[arg-type]

    assert one.follow is not None
    assert (one.follow["state"], one.follow["lag_seconds"]) == (state, lag)
    assert one.lag_seconds == of_collection


def test_empty_history_has_no_cycle() -> None:
    history = History(EmptyRedis(), state_keys("a"))  # type: ignore[arg-type]
    assert (history.last_cycle(), history.last_success()) == (None, None)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "0 s"), (0.9, "0 s"), (59, "59 s"), (60, "1 min"), (61.5, "1 min 1 s"), (3600, "1 h")),
        *((7261, "2 h 1 min"), (90_000, "1 d 1 h"), (86_400 * 400, "400 d")),
    ],
)
def test_duration_has_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
