"""The lock of a campaign for generators in Python."""

import pytest
import redis

from etl.generation_lock import GenerationLock, LockHeld, LockLost

KEY = "lock:content_generation:camp_1"


def test_lock_has_the_process_id_and_expires(redis_client: redis.Redis) -> None:
    """After 30 seconds."""
    with GenerationLock(redis_client, "camp_1", "process_id_123"):
        assert redis_client.get(KEY) == "process_id_123"
        assert 29_000 < redis_client.pttl(KEY) <= 30_000
    assert not redis_client.exists(KEY)


def test_campaign_is_encoded_in_the_key_of_its_lock(redis_client: redis.Redis) -> None:
    with GenerationLock(redis_client, "a:{b}*"):
        assert redis_client.keys() == ["lock:content_generation:a%3A%7Bb%7D%2A"]


def test_second_holder_is_refused(redis_client: redis.Redis) -> None:
    with GenerationLock(redis_client, "camp_1", "first"):
        assert not GenerationLock(redis_client, "camp_1", "second").acquire()
        with pytest.raises(LockHeld), GenerationLock(redis_client, "camp_1", "second"):
            pytest.fail("two holders at once")
        assert redis_client.get(KEY) == "first"


def test_second_holder_may_wait_for_the_lock(redis_client: redis.Redis) -> None:
    assert GenerationLock(redis_client, "camp_1", "first", seconds=0.2).acquire()
    assert GenerationLock(redis_client, "camp_1", "second").acquire(wait_seconds=5)
    assert redis_client.get(KEY) == "second"


def test_holder_does_not_release_the_lock_of_another(redis_client: redis.Redis) -> None:
    """A holder whose lock has expired gets `LockLost`."""
    late = GenerationLock(redis_client, "camp_1", "late")
    assert late.acquire()
    redis_client.delete(KEY)  # as if it had expired
    assert GenerationLock(redis_client, "camp_1", "next").acquire()

    with pytest.raises(LockLost):
        late.extend()
    assert not late.release()
    assert redis_client.get(KEY) == "next"


def test_holder_can_extend_its_lock_by_the_full_time(redis_client: redis.Redis) -> None:
    with GenerationLock(redis_client, "camp_1") as lock:
        redis_client.pexpire(KEY, 500)
        lock.extend()
        assert redis_client.pttl(KEY) > 29_000


def test_two_locks_in_one_process_are_two_holders(redis_client: redis.Redis) -> None:
    names = {GenerationLock(redis_client, "camp_1").process_id for _ in range(100)}
    assert len(names) == 100
