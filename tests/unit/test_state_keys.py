"""The names of the ETL's own keys."""

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


def test_each_is_named_after_the_published_key() -> None:
    """`{etl:last_sync:<collection>}:v2:<role>`, so that all are in one slot of a Redis Cluster."""
    own = state_keys("promptContent")
    assert own.published == "etl:last_sync:promptContent"
    assert own.checkpoint == "{etl:last_sync:promptContent}:v2:checkpoint"
    for role, key in own._asdict().items():
        assert key in {own.published, f"{{{own.published}}}:v2:{role}"}
    assert len(set(own)) == len(StateKeys._fields)
    assert len({key_slot(key.encode()) for key in own}) == 1


def test_a_name_cannot_break_out_of_its_braces() -> None:
    """Nor can two collections, or two namespaces, meet on one key."""
    assert state_keys("a}b").checkpoint == "{etl:last_sync:a%7Db}:v2:checkpoint"
    assert not set(state_keys("a")) & set(state_keys("a:lease"))
    own, other = (set(state_keys("a", namespace)) for namespace in ("x", "y"))
    assert not own & other
    assert state_keys("a", "x").published == "etl:last_sync:x/a"


def test_each_kind_of_run_has_a_fence_of_its_own() -> None:
    """What they share is what belongs to the collection, not to a run."""
    own = state_keys("a")
    runs = [own, of_backfill(own), of_follower(own)]
    for role in ("fence", "checkpoint", "lease"):
        assert len({getattr(keys, role) for keys in runs}) == 3
    for role in ("deferred", "dead_letters", "queues", "history", "published"):
        assert len({getattr(keys, role) for keys in runs}) == 1


def test_a_register_is_in_the_slot_of_its_key() -> None:
    """They change in one step."""
    for key in ("config:api:a", "ai:campaign_messages:c:0", "queue:ai_generation:alta"):
        assert {key_slot(owner_key(key).encode()), key_slot(requests_key(key).encode())} == {
            key_slot(key.encode())
        }


def test_records_of_two_collections_are_told_apart() -> None:
    """By the name of the document, which begins with that of the collection."""
    assert record_key('a {"$oid": "x"}') == 'etl:record:a {"$oid": "x"}'
