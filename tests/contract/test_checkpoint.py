"""Stage 4, over a fake Redis and a real one: one fenced step, never backwards."""

import time
from itertools import chain
from typing import Any

import pytest
import redis
from bson import ObjectId
from bson.datetime_ms import DatetimeMS
from etl.model.outcome import Outcome
from etl.sync.batch import Decision

from etl.cache.client import Wire
from etl.cache.keys import companions
from etl.checkpoint.checkpoint import CheckpointStore
from etl.errors import CycleFailed, LeaseLost
from etl.model.report import Report
from etl.model.state import DeadLetter, Deferral, Reached, State
from etl.sync.planner import Checkpoint, Clocks, Scan
from schemas.operations import FieldError, Reject
from schemas.position import AFTER_DATES, FIRST, LAST, Position, at
from tests.support.outcomes import applied, refused
from tests.support.twins import NAME, Insistent, take_lease

OWN = companions(NAME)
CLOCKS = Clocks(mongo=5_000, redis=6_000)
SCAN = Scan("cold_start", CLOCKS, FIRST, LAST)
LOCK = "lock:content_generation:a"


@pytest.fixture
def store(wire: Wire) -> CheckpointStore:
    """The checkpoint of one collection."""
    return CheckpointStore(wire, NAME, OWN, 1320, Insistent())


def position(ms: int, document_id: Any = 1) -> Position:
    """A position at a date."""
    return Position(DatetimeMS(ms), document_id)


def reached(stands: Position | None, scan: Scan = SCAN) -> Reached:
    """A cycle that is so far, and remembers from millisecond 1000 on."""
    return Reached(scan, stands, 1_000)


def outcome(where: Position, key: str | None = None) -> Outcome:
    """A document that is applied, or waits for a lock."""
    return applied(where, lock=key)


def test_nothing_is_known_at_first(store: CheckpointStore, client: redis.Redis) -> None:
    """An empty Redis gives an empty state, and its clock."""
    state = store.load()
    assert state.checkpoint is None
    assert (state.deferred, state.dead_letters, state.seen, state.claims) == ({}, 0, 0, 0)
    assert abs(state.now - time.time() * 1000) < 60_000
    assert client.dbsize() == 0


def test_a_cycle_under_way_is_known(store: CheckpointStore, client: redis.Redis) -> None:
    """What was recorded with a batch is loaded again: the scan, the position, what was handled."""
    where, moved = position(4_000, ObjectId()), SCAN.moved(position(4_500, "x"))
    decision = Decision(applied=[outcome(where)], claims={"config:api:a": outcome(where)})
    store.advance(take_lease(client), State(), reached(where, moved), decision, [])
    state = store.load()
    assert state.checkpoint == Checkpoint(where, None, moved)
    assert (state.seen, state.claims) == (1, 1)
    assert client.zscore(OWN.seen, where.name()) == 4_000


def test_a_finished_cycle_is_published(store: CheckpointStore, client: redis.Redis) -> None:
    """The scan is over, the watermark is there for others to read, and lives for two cycles."""
    token, where = take_lease(client), position(4_000)
    store.advance(token, State(), reached(where), Decision(), [])
    report = Report(NAME, last_id="1", last_timestamp="1970-01-01T00:00:04Z", records_processed=3)
    store.finish(token, reached(where), 1_000, report)
    assert store.load().checkpoint == Checkpoint(where, CLOCKS, None)
    assert client.hgetall(OWN.published) == {
        "last_id": "1",
        "last_timestamp": "1970-01-01T00:00:04Z",
        "records_processed": "3",
        "sync_duration_ms": "0",
    }
    assert 1310 < client.ttl(OWN.published) <= 1320
    assert client.ttl(OWN.checkpoint) == -1
    assert client.llen(OWN.history) == 1


def test_an_empty_collection_has_a_watermark_without_position(
    store: CheckpointStore, client: redis.Redis
) -> None:
    """A cycle that met no document is finished too, and the next one is no cold start."""
    store.finish(take_lease(client), reached(None), 0, Report(NAME))
    assert store.load().checkpoint == Checkpoint(None, CLOCKS, None)


def test_a_watermark_alone_is_resumed_from(store: CheckpointStore, client: redis.Redis) -> None:
    """With nothing but `etl:last_sync`, reading goes on where it says."""
    client.hset(OWN.published, mapping={"last_id": "7", "last_timestamp": "1970-01-01T00:00:04.250Z"})
    found = store.load().checkpoint
    assert found is not None
    assert found.position == position(4_250, 7)


@pytest.mark.parametrize(
    "published", [{}, {"last_id": "1"}, {"last_id": "1", "last_timestamp": "x"}, {"last_timestamp": "2025"}]
)
def test_a_watermark_that_says_nothing_is_none(
    store: CheckpointStore, client: redis.Redis, published: dict[str, str]
) -> None:
    """What cannot be read on from leads to a cold start."""
    client.hset(OWN.published, items=["records_processed", "0", *chain(*published.items())])
    assert store.load().checkpoint is None


def test_a_stale_token_moves_nothing(store: CheckpointStore, client: redis.Redis) -> None:
    """After a take-over neither a batch nor the end of a cycle is recorded."""
    token = take_lease(client)
    store.advance(token, State(), reached(position(2_000)), Decision(), [])
    _, _, holder = take_lease(client).partition(":")
    before = client.hgetall(OWN.checkpoint)
    decision = Decision(rejected=[outcome(position(3_000))], deferred=[outcome(position(3_000), LOCK)])
    with pytest.raises(LeaseLost, match=f"{holder} has taken over"):
        store.advance(token, State(), reached(position(3_000)), decision, [])
    with pytest.raises(LeaseLost, match=f"{holder} has taken over"):
        store.finish(token, reached(position(3_000)), 0, Report(NAME))
    assert client.hgetall(OWN.checkpoint) == before
    assert not client.exists(OWN.seen, OWN.deferred, OWN.dead_letters, OWN.published, OWN.history)


def test_nothing_is_recorded_after_a_flush(store: CheckpointStore, client: redis.Redis) -> None:
    """In a Redis that has lost its data an old token counts no more, and no other holder is blamed."""
    token = take_lease(client)
    client.flushdb()
    with pytest.raises(LeaseLost, match="gone from Redis"):
        store.finish(token, reached(position(3_000)), 0, Report(NAME))
    assert client.dbsize() == 0


def test_the_checkpoint_never_goes_back(store: CheckpointStore, client: redis.Redis) -> None:
    """An earlier position is refused together with all that comes with it; the same one is not."""
    token = take_lease(client)
    store.advance(token, State(), reached(position(3_000)), Decision(), [])
    with pytest.raises(CycleFailed):
        store.advance(
            token, State(), reached(position(2_999)), Decision(applied=[outcome(position(2_000))]), []
        )
    assert not client.exists(OWN.seen)
    store.advance(token, State(), reached(position(3_000)), Decision(), [])
    found = store.load().checkpoint
    assert found is not None
    assert found.position == position(3_000)


def test_only_the_window_is_remembered(store: CheckpointStore, client: redis.Redis) -> None:
    """What no later scan reads again leaves no trace; what leaves the window is forgotten with its claims."""
    token, decision = take_lease(client), Decision()
    places = {"old": 999, "edge": 1_000, "new": 4_000}
    decision.applied = [outcome(position(ms)) for ms in places.values()]
    decision.claims = {key: outcome(position(ms)) for key, ms in places.items()}
    store.advance(token, State(), reached(position(4_000)), decision, [])
    assert client.zrange(OWN.claims, 0, -1) == ["edge", "new"]
    store.finish(token, reached(position(4_000)), 4_000, Report(NAME))
    assert client.zcard(OWN.seen) == 1
    assert client.zrange(OWN.claims, 0, -1) == client.hkeys(OWN.claimants) == ["new"]


def test_thousands_are_remembered_and_forgotten(store: CheckpointStore, client: redis.Redis) -> None:
    """However many versions a batch has, one step takes them."""
    token, decision = take_lease(client), Decision()
    decision.applied = [outcome(position(2_000, n)) for n in range(5_000)]
    decision.claims = {f"key {n}": outcome(position(2_000, n)) for n in range(5_000)}
    store.advance(token, State(), reached(position(2_000)), decision, [])
    assert client.zcard(OWN.seen) == client.hlen(OWN.claimants) == 5_000
    store.finish(token, reached(position(2_000)), 2_001, Report(NAME))
    assert not client.exists(OWN.seen, OWN.claims, OWN.claimants)


def test_too_many_are_forgotten_altogether(
    store: CheckpointStore, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the cap neither versions nor claims are kept, for the rest of the scan too."""
    monkeypatch.setattr("etl.checkpoint.checkpoint.SEEN_CAP", 2)
    token, state = take_lease(client), State()
    for n in range(4):
        one = outcome(position(2_000, n))
        decision = Decision(applied=[one], claims={f"key {n}": one})
        store.advance(token, state, reached(position(2_000)), decision, [])
    assert state.overflowed
    assert not client.exists(OWN.seen, OWN.claims, OWN.claimants)


def test_deferrals(store: CheckpointStore, client: redis.Redis) -> None:
    """A document waits until it is applied, refused or gone; put off again it keeps its first date."""
    token, state = take_lease(client), State(now=0)
    waits = [outcome(position(2_000, n), LOCK) for n in range(4)]
    store.advance(token, state, reached(None), Decision(deferred=waits), [])
    state = store.load()
    assert Deferral(LOCK, "1970-01-01T00:00:00Z", position(2_000, 0)) in state.deferred.values()
    assert state.waiting == {LOCK}
    gone = next(key for key, deferral in state.deferred.items() if deferral.position.id == 3)
    again = outcome(position(3_000, 0), LOCK)
    decision = Decision(applied=[waits[1]], rejected=[waits[2]], gone=[gone], deferred=[again])
    store.advance(token, state, reached(None), decision, [])
    [left] = store.load().deferred.values()
    assert left == Deferral(LOCK, "1970-01-01T00:00:00Z", position(3_000, 0))


def letter(document: str, attempts: int = 1) -> DeadLetter:
    """A dead letter."""
    return DeadLetter(document, "invalid fields", (FieldError("a", "b"),), "then", "now", attempts)


def test_dead_letters(store: CheckpointStore, client: redis.Redis) -> None:
    """They are kept by `_id`, found again, and cleared when their documents are applied or gone."""
    token = take_lease(client)
    bad = [refused(position(2_000, name), Reject("bad")) for name in "abc"]
    letters = [letter(f'"{name}"') for name in "abc"]
    store.advance(token, State(), reached(None), Decision(rejected=bad), letters)
    assert dict(store.known_dead(bad[:1])) == {'"a"': letters[0]}
    state = store.load()
    assert state.dead_letters == 3
    decision = Decision(applied=[outcome(position(3_000, "a"))], gone=['"b"'])
    store.advance(token, state, reached(None), decision, [])
    assert client.hkeys(OWN.dead_letters) == ['"c"']


def test_dead_letters_are_bounded(
    store: CheckpointStore, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the cap they are only counted; known ones are still updated."""
    monkeypatch.setattr("etl.checkpoint.checkpoint.DEAD_LETTER_CAP", 2)
    token, state = take_lease(client), State()
    store.advance(token, state, reached(None), Decision(), [letter("1"), letter("2"), letter("3")])
    store.advance(token, state, reached(None), Decision(), [letter("4"), letter("1", attempts=2)])
    assert sorted(client.hkeys(OWN.dead_letters)) == ["1", "2"]
    assert client.hget(OWN.checkpoint, "dead_letters_beyond") == "2"


def test_history_is_bounded(
    store: CheckpointStore, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest runs come first, failed ones too, and old ones go."""
    monkeypatch.setattr("etl.checkpoint.checkpoint.HISTORY_CAP", 2)
    token = take_lease(client)
    for n in range(3):
        store.finish(token, reached(None), 0, Report(NAME, records_processed=n))
    store.record(Report(NAME).failed("gone", 1), 0)
    newest, before = client.lrange(OWN.history, 0, -1)
    assert '"error": "gone"' in newest
    assert '"records_processed": 2' in before


def test_a_scan_of_deltas_is_known(store: CheckpointStore, client: redis.Redis) -> None:
    """Bounds of every kind come back as they were."""
    scan = Scan("delta", CLOCKS, at(1_000), AFTER_DATES)
    store.advance(take_lease(client), State(), reached(None, scan), Decision(), [])
    assert store.load().checkpoint == Checkpoint(None, None, scan)
