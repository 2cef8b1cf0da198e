"""Stage 4: fenced atomic steps, never backwards."""

import time
from itertools import chain
from typing import Any

import pytest
import redis
from bson import ObjectId
from bson.datetime_ms import DatetimeMS

from etl.cache.client import Command, Wire
from etl.checkpoint.checkpoint import CheckpointStore
from etl.checkpoint.dead_letters import DeadLetters
from etl.checkpoint.follow_store import FollowStore
from etl.errors import CycleFailed, LeaseLost
from etl.model.batch import BatchOutcome, Deferred, Rejected
from etl.model.report import Report
from etl.model.scan import Checkpoint, Origin, Scan, ServerTimes
from etl.model.state import DeadLetter, Deferral, State, dead_letter_from_text
from schemas.operations import FieldError, Reject
from schemas.position import AFTER_DATES, FIRST, LAST, Position, at
from tests.support.assembly import OWN, ImmediateRetry, take_lease

CLOCKS = ServerTimes(mongo=5_000, redis=6_000)
SCAN = Scan("cold_start", CLOCKS, FIRST, LAST)
LOCK = "lock:content_generation:a"
NOTHING = BatchOutcome()


@pytest.fixture
def store(wire: Wire) -> CheckpointStore:
    """The checkpoint of one collection."""
    return CheckpointStore(wire, OWN, 1320, ImmediateRetry())


def position(ms: int, document_id: Any = 1) -> Position:
    """A position at a date."""
    return Position(DatetimeMS(ms), document_id)


def finish(store: CheckpointStore, token: str, where: Position | None = None, **counts: Any) -> None:
    """Record the end of a cycle."""
    store.finish(token, SCAN, where, Report("promptContent", **counts), {}, frozenset())


def test_empty_redis_gives_an_empty_state(store: CheckpointStore, client: redis.Redis) -> None:
    """With the clock of Redis."""
    state = store.load()
    assert state == State(now=state.now)
    assert abs(state.now - time.time() * 1000) < 60_000
    assert store.waiting() == frozenset()
    assert client.dbsize() == 0


def test_scan_position_and_queues_are_loaded_again(store: CheckpointStore, client: redis.Redis) -> None:
    where, moved = position(4_000, ObjectId()), SCAN.moved(position(4_500, "x"), 7)
    store.advance(take_lease(client), moved, where, BatchOutcome(queues={"queue:a", "queue:b"}))
    state = store.load()
    assert state.checkpoint == Checkpoint(where, None, moved)
    assert state.queues == {"queue:a", "queue:b"}


@pytest.mark.parametrize(
    "scan",
    [
        Scan("delta", CLOCKS, at(1_000), AFTER_DATES),
        Scan("backfill", CLOCKS, at(1_500), at(9_000), at(1_000), done=12),
        Scan("cold_start", CLOCKS, Position(None, {"a": [b"\x00", 2.5]}), LAST),
    ],
)
def test_scans_of_every_mode_are_loaded_again(
    store: CheckpointStore, client: redis.Redis, scan: Scan
) -> None:
    store.advance(take_lease(client), scan, None, NOTHING)
    assert store.load().checkpoint == Checkpoint(None, None, scan)


def test_finished_cycle_is_published(store: CheckpointStore, client: redis.Redis) -> None:
    """The scan ends, and the watermark is published with a TTL of two cycles."""
    token, where = take_lease(client), position(4_000)
    store.advance(token, SCAN, where, NOTHING)
    last = {"last_id": "1", "last_timestamp": "1970-01-01T00:00:04Z", "records_processed": 3}
    finish(store, token, where, **last)
    assert store.load().checkpoint == Checkpoint(where, CLOCKS, None)
    published = {name: str(value) for name, value in last.items()} | {"sync_duration_ms": "0"}
    assert client.hgetall(OWN.published) == published
    ttl: Any = client.ttl(OWN.published)
    assert 1310 < ttl <= 1320
    assert client.ttl(OWN.checkpoint) == -1
    assert client.llen(OWN.history) == 1


def test_empty_collection_has_a_watermark_without_position(
    store: CheckpointStore, client: redis.Redis
) -> None:
    """So the next cycle is no cold start."""
    finish(store, take_lease(client))
    assert store.load().checkpoint == Checkpoint(None, CLOCKS, None)


def test_scan_resumes_from_the_published_watermark_alone(store: CheckpointStore, client: redis.Redis) -> None:
    """`etl:last_sync` is the only key."""
    client.hset(OWN.published, mapping={"last_id": "7", "last_timestamp": "1970-01-01T00:00:04.250Z"})
    found = store.load().checkpoint
    assert found is not None
    assert found.position == position(4_250, 7)


@pytest.mark.parametrize(
    "published", [{}, {"last_id": "1"}, {"last_id": "1", "last_timestamp": "x"}, {"last_timestamp": "2025"}]
)
def test_invalid_watermark_is_ignored(
    store: CheckpointStore, client: redis.Redis, published: dict[str, str]
) -> None:
    """A cold start follows."""
    client.hset(OWN.published, items=["records_processed", "0", *chain(*published.items())])
    assert store.load().checkpoint is None


def test_another_collection_discards_the_position_but_not_deferrals(
    store: CheckpointStore, client: redis.Redis
) -> None:
    token, origin = take_lease(client), Origin("database.collection by updated_at", "uuid")
    store.identify(token, origin)
    store.advance(token, SCAN, position(1_000), BatchOutcome(deferred=[Deferred("1", LOCK)]))
    assert store.load().origin == origin
    other = origin._replace(uuid="another")
    store.identify(token, other)
    state = store.load()
    assert (state.origin, state.checkpoint) == (other, None)
    assert [*state.deferred] == ["1"]


def test_stale_token_records_nothing(store: CheckpointStore, client: redis.Redis) -> None:
    """Neither a batch nor the end of a cycle after a take-over; the error names the new holder."""
    token = take_lease(client)
    store.advance(token, SCAN, position(2_000), NOTHING)
    newest = take_lease(client)
    before = client.hgetall(OWN.checkpoint)
    outcome = BatchOutcome(
        rejected=[Rejected("1", Reject("bad"), "1")], deferred=[Deferred("2", LOCK)], queues={"queue:a"}
    )
    with pytest.raises(LeaseLost, match=newest.partition(":")[2]):
        store.advance(token, SCAN, position(3_000), outcome)
    with pytest.raises(LeaseLost):
        finish(store, token, position(3_000))
    assert client.hgetall(OWN.checkpoint) == before
    assert not client.exists(OWN.deferred, OWN.dead_letters, OWN.published, OWN.history, OWN.queues)


def test_token_is_stale_after_a_flush(store: CheckpointStore, client: redis.Redis) -> None:
    token = take_lease(client)
    client.flushdb()
    with pytest.raises(LeaseLost):
        finish(store, token, position(3_000))
    assert client.dbsize() == 0


def test_checkpoint_never_goes_back(store: CheckpointStore, client: redis.Redis) -> None:
    """An earlier position is refused together with its outcome; the same position is not."""
    token = take_lease(client)
    store.advance(token, SCAN, position(3_000), NOTHING)
    with pytest.raises(CycleFailed, match="backwards"):
        store.advance(token, SCAN, position(2_999), BatchOutcome(queues={"queue:a"}))
    assert not client.exists(OWN.queues)
    store.advance(token, SCAN, position(3_000), NOTHING)
    found = store.load().checkpoint
    assert found is not None
    assert found.position == position(3_000)


class TwiceRetry(ImmediateRetry):
    """Sends every step twice, as after a lost reply."""

    def __call__(self, step: Any) -> Any:
        super().__call__(step)
        return super().__call__(step)


def test_repeated_step_is_carried_out_once(wire: Wire, client: redis.Redis) -> None:
    """It adds one run to the history, and counts incomplete keys once."""
    for runs in (1, 2):
        store, token = CheckpointStore(wire, OWN, 1320, TwiceRetry()), take_lease(client)
        store.advance(token, SCAN, None, BatchOutcome(incomplete=3))
        finish(store, token)
        assert client.llen(OWN.history) == runs
        assert store.reconciliation_due() == 3 * runs


def test_step_that_arrives_late_does_nothing(
    wire: Wire, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a later one. It is no error, because it was carried out before."""
    sent: list[Command] = []
    exchange = wire.exchange

    def recorded(commands: Any) -> Any:
        sent.extend(commands)
        return exchange(commands)

    monkeypatch.setattr(wire, "exchange", recorded)
    store, token = CheckpointStore(wire, OWN, 1320, ImmediateRetry()), take_lease(client)
    for ms in (2_000, 3_000):
        store.advance(token, SCAN.moved(position(ms)), position(ms), BatchOutcome(incomplete=1))
    kept = client.hgetall(OWN.checkpoint)

    assert exchange(sent[:1]) == [1]
    assert client.hgetall(OWN.checkpoint) == kept
    assert store.reconciliation_due() == 2


def test_step_numbers_restart_with_a_new_token(wire: Wire, client: redis.Redis) -> None:
    for _ in range(2):
        store, token = CheckpointStore(wire, OWN, 1320, ImmediateRetry()), take_lease(client)
        for _ in range(2):
            finish(store, token)
    assert client.llen(OWN.history) == 4


def test_deferral_is_kept_until_its_document_is_handled(store: CheckpointStore, client: redis.Redis) -> None:
    """Or rejected; deferred again it keeps its first date."""
    token = take_lease(client)
    store.advance(token, SCAN, None, BatchOutcome(deferred=[Deferred(str(n), LOCK) for n in range(4)]))
    first = store.load().deferred
    assert {one.lock for one in first.values()} == {LOCK}
    assert store.waiting() == {"0", "1", "2", "3"}
    since = Deferral("lock:b", "2001-01-01T00:00:00Z")
    client.hset(OWN.deferred, "0", since.text())
    outcome = BatchOutcome(
        handled=["1", "3"], rejected=[Rejected("2", Reject("bad"), "1")], deferred=[Deferred("0", LOCK)]
    )
    store.advance(token, SCAN, None, outcome)
    assert store.load().deferred == {"0": Deferral(LOCK, since.since)}
    assert store.waiting() == {"0", "2"}


def refused(name: str, version: str = "1000") -> Rejected:
    """A rejected document."""
    return Rejected(name, Reject("invalid fields", (FieldError("a", "b"),)), version)


def test_dead_letter_is_kept_until_its_document_is_handled(
    store: CheckpointStore, wire: Wire, client: redis.Redis
) -> None:
    """By `_id`, with its reason."""
    token = take_lease(client)
    letters = store.advance(token, SCAN, None, BatchOutcome(rejected=[refused(name) for name in "abc"]))
    assert [(one.id, one.reason, one.attempts, one.version) for one in letters] == [
        (name, "invalid fields", 1, "1000") for name in "abc"
    ]
    assert letters[0].errors == (FieldError("a", "b"),)
    kept = DeadLetters(wire, OWN, ImmediateRetry())
    assert kept.find(["a", "x"]) == {"a": letters[0]}
    assert store.load().dead_letters == 3
    assert store.waiting() == {"a", "b", "c"}
    store.advance(token, SCAN, None, BatchOutcome(handled=["a", "b"]))
    assert client.hkeys(OWN.dead_letters) == ["c"]


def test_attempts_count_versions(store: CheckpointStore, client: redis.Redis) -> None:
    """The same version counts again only if it is retried by a command."""
    token = take_lease(client)

    def attempts(version: str, *, retried: bool = False) -> list[int]:
        outcome = BatchOutcome(rejected=[refused("a", version)])
        return [one.attempts for one in store.advance(token, SCAN, None, outcome, retried=retried)]

    assert attempts("1000") == [1]
    assert attempts("1000") == []
    assert attempts("1000", retried=True) == [2]
    assert attempts("2000") == [3]
    assert store.load().dead_letters == 1


def test_dead_letters_are_bounded(
    store: CheckpointStore, wire: Wire, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the cap they are counted only; known ones are still updated."""
    monkeypatch.setattr("etl.checkpoint.checkpoint.DEAD_LETTER_CAP", 2)
    token = take_lease(client)
    store.advance(token, SCAN, None, BatchOutcome(rejected=[refused(name) for name in "123"]))
    later = [refused("4"), refused("1", "2000")]
    letters = store.advance(token, SCAN, None, BatchOutcome(rejected=later))
    assert [(one.id, one.attempts) for one in letters] == [("4", 1), ("1", 2)]
    kept = DeadLetters(wire, OWN, ImmediateRetry())
    assert {one.id: one.attempts for one in kept.list()} == {"1": 2, "2": 1}
    assert kept.beyond() == 2


def test_thousands_of_documents_in_one_batch(store: CheckpointStore, client: redis.Redis) -> None:
    token, names = take_lease(client), [str(n) for n in range(5_000)]
    store.advance(token, SCAN, None, BatchOutcome(rejected=[refused(name) for name in names]))
    store.advance(token, SCAN, None, BatchOutcome(deferred=[Deferred(name, LOCK) for name in names]))
    assert client.hlen(OWN.dead_letters) == client.hlen(OWN.deferred) == 5_000
    store.advance(token, SCAN, None, BatchOutcome(handled=names))
    assert not client.exists(OWN.dead_letters, OWN.deferred)


def test_history_is_bounded(
    store: CheckpointStore, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest runs come first, also failed ones."""
    monkeypatch.setattr("etl.checkpoint.checkpoint.HISTORY_CAP", 2)
    token = take_lease(client)
    for number in range(3):
        finish(store, token, records_processed=number)
    store.record(Report("promptContent").failed("gone", 1), 0)
    runs: Any = client.lrange(OWN.history, 0, -1)
    newest, before = runs
    assert '"error": "gone"' in newest
    assert '"records_processed": 2' in before


def test_backfill_ends_without_a_watermark(store: CheckpointStore, client: redis.Redis) -> None:
    """It is in the history."""
    token = take_lease(client)
    store.advance(token, SCAN, position(1_000), NOTHING)
    store.end(token, SCAN, Report("promptContent", mode="backfill"), frozenset())
    assert store.load().checkpoint is None
    assert client.llen(OWN.history) == 1
    assert not client.exists(OWN.published)


def test_incomplete_keys_are_counted_until_a_reconciliation(
    store: CheckpointStore, client: redis.Redis
) -> None:
    """Those that were counted during the reconciliation stay due."""
    token = take_lease(client)
    for incomplete in (2, 0, 3):
        store.advance(token, SCAN, None, BatchOutcome(incomplete=incomplete))
    counted = store.reconciliation_due()
    assert counted == 5
    store.advance(token, SCAN, None, BatchOutcome(incomplete=1))
    store.reconciled(counted)
    assert store.reconciliation_due() == 1


def test_follower_has_its_own_token(store: CheckpointStore, client: redis.Redis) -> None:
    """Dead letters, deferrals and queues are kept as by a cycle."""
    follow, token = FollowStore(store), take_lease(client)
    assert follow.token() is None
    outcome = BatchOutcome(
        rejected=[refused("a")], deferred=[Deferred("b", LOCK)], queues={"queue:a"}, incomplete=2
    )
    resume = {"_data": "8265", "n": b"\x00"}
    follow.advance(token, resume, 5.5, outcome, caught_up=True)
    assert follow.token() == resume
    state = store.load()
    assert (state.dead_letters, [*state.deferred], {*state.queues}) == (1, ["b"], {"queue:a"})
    assert store.reconciliation_due() == 2
    client.hset(OWN.checkpoint, "token", "nonsense")
    assert follow.token() is None
    take_lease(client)
    with pytest.raises(LeaseLost):
        follow.advance(token, resume, None, NOTHING, caught_up=False)


def test_dead_letters_of_the_previous_release_are_read() -> None:
    """They have no version."""
    text = '{"id": "1", "reason": "bad", "errors": [], "first_seen": "a", "last_seen": "b", "attempts": 2}'
    assert dead_letter_from_text(text) == DeadLetter("1", "bad", (), "a", "b", 2, "")
