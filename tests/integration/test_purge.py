"""`etl purge` deletes the state of a collection in Redis, and nothing else."""

import json
from datetime import UTC, datetime
from functools import partial

import pytest
import redis
from pymongo.collection import Collection
from pymongo.database import Database

from etl.cache.keys import record_key, requests_key, state_keys
from tests.factories import api, campaign
from tests.support.command import Etl
from tests.support.pipeline import NAME
from tests.support.types import Document

OTHER = "other*[x]"
KEYS = state_keys(NAME)
ALTA, BAJA = "queue:ai_generation:alta", "queue:ai_generation:baja"


def all_keys(client: redis.Redis) -> set[str]:
    """All keys in Redis."""
    return {str(key) for key in client.scan_iter(count=1000)}


@pytest.fixture
def etl(etl: Etl) -> Etl:
    """Run a command on two collections."""
    collections = json.dumps([{"name": NAME}, {"name": OTHER}])
    return partial(etl, "--set", f"collections={collections}")


@pytest.fixture
def synced(
    etl: Etl, collection: Collection[Document], database: Database[Document], redis_client: redis.Redis
) -> redis.Redis:
    """Redis after a cycle of two collections; both feed one queue, the first also another one."""
    moment = datetime(2025, 1, 15, tzinfo=UTC)
    collection.insert_many(
        [
            api("a", moment),
            campaign("c1", moment, estado="pendiente", prioridad="alta"),
            campaign("c2", moment, estado="pendiente", prioridad="baja"),
            {"updated_at": moment, "tipo": "unknown"},
        ]
    )
    database[OTHER].insert_one(campaign("c3", moment, estado="pendiente", prioridad="baja"))
    assert etl("sync").code == 0
    return redis_client


def test_dry_run_lists_the_keys_to_delete(etl: Etl, synced: redis.Redis) -> None:
    before = all_keys(synced)
    code, out, _ = etl("purge", NAME, "--dry-run", "--json")
    found = json.loads(out)
    assert (code, found["deleted"], all_keys(synced)) == (0, 0, before)
    own = {key for key in KEYS if key in before}
    records = {key for key in before if key.startswith(record_key(f"{NAME} "))}
    assert len(records) == 3
    assert set(found["keys"]) == own | records | {requests_key(ALTA)}
    assert KEYS.checkpoint in own


def test_purge_deletes_only_the_state_of_the_collection(etl: Etl, synced: redis.Redis) -> None:
    """Not contract keys, queues, or keys that another collection needs."""
    before = all_keys(synced)
    dry = set(etl("purge", NAME, "--dry-run", "--json").json["keys"])
    code, out, _ = etl("purge", NAME, "--yes")
    assert code == 0
    assert out.endswith(f"\n{len(dry)} deleted\n")
    left = all_keys(synced)
    assert left == before - dry
    assert {ALTA, BAJA, "config:api:a", state_keys(OTHER).checkpoint} <= left
    assert etl("purge", NAME, "--yes").out == "0 deleted\n"


def test_purge_deletes_queues_on_request(etl: Etl, synced: redis.Redis) -> None:
    """Except one that another collection feeds. A name with pattern characters is not a pattern."""
    assert etl("purge", NAME, "--queues", "--yes").code == 0
    assert (synced.exists(ALTA), synced.exists(BAJA)) == (0, 1)
    assert etl("purge", OTHER, "--queues", "--yes").code == 0
    left = {key for key in all_keys(synced) if not key.endswith(":owner")}
    assert left == {"config:api:a"}


def test_purge_asks_for_confirmation(etl: Etl, synced: redis.Redis) -> None:
    """Without a terminal it deletes nothing, and suggests `--yes`."""
    before = all_keys(synced)
    code, _, err = etl("purge", NAME)
    assert (code, all_keys(synced)) == (2, before)
    assert "--yes" in err


@pytest.mark.parametrize("lease", [KEYS.leader, KEYS.lease, KEYS.backfill_lease, KEYS.follow_lease])
def test_collection_in_use_is_not_purged(etl: Etl, synced: redis.Redis, lease: str) -> None:
    """By a daemon or by another command. The error names the holder; the exit code is 75."""
    synced.set(lease, "worker-1:4711:0123456789ab")
    before = all_keys(synced)
    code, _, err = etl("purge", NAME, "--yes")
    assert (code, all_keys(synced)) == (75, before)
    assert "worker-1:4711" in err
