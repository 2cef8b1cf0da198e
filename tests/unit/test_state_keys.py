"""The names of the state keys and registers."""

from redis.crc import key_slot

from etl.cache.keys import (
    StateKeys,
    of_backfill,
    of_follower,
    owner_key,
    record_key,
    requests_key,
    state_keys,
)


def test_state_keys_are_in_the_slot_of_the_published_key() -> None:
    """They are named `{etl:last_sync:<collection>}:v2:<role>`."""
    own = state_keys("promptContent")
    assert own.published == "etl:last_sync:promptContent"
    assert own.checkpoint == "{etl:last_sync:promptContent}:v2:checkpoint"
    for role, key in own._asdict().items():
        assert key in {own.published, f"{{{own.published}}}:v2:{role}"}
    assert len(set(own)) == len(StateKeys._fields)
    assert len({key_slot(key.encode()) for key in own}) == 1


def test_collection_names_cannot_collide() -> None:
    """Braces are encoded; namespaces are separate."""
    assert state_keys("a}b").checkpoint == "{etl:last_sync:a%7Db}:v2:checkpoint"
    assert not set(state_keys("a")) & set(state_keys("a:lease"))
    own, other = (set(state_keys("a", namespace)) for namespace in ("x", "y"))
    assert not own & other
    assert state_keys("a", "x").published == "etl:last_sync:x/a"


def test_each_kind_of_run_has_its_own_fence() -> None:
    """Keys that belong to the collection are shared."""
    own = state_keys("a")
    runs = [own, of_backfill(own), of_follower(own)]
    for role in ("fence", "checkpoint", "lease"):
        assert len({getattr(keys, role) for keys in runs}) == 3
    for role in ("deferred", "dead_letters", "queues", "history", "published"):
        assert len({getattr(keys, role) for keys in runs}) == 1


def test_register_is_in_the_slot_of_its_key() -> None:
    """So that both change atomically."""
    for key in ("config:api:a", "ai:campaign_messages:c:0", "queue:ai_generation:alta"):
        assert {key_slot(owner_key(key).encode()), key_slot(requests_key(key).encode())} == {
            key_slot(key.encode())
        }


def test_record_key_has_the_name_of_the_collection() -> None:
    assert record_key('a {"$oid": "x"}') == 'etl:record:a {"$oid": "x"}'
