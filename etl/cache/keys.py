"""The ETL's own keys in Redis, each named after the contract key, or the document, that it belongs to.

`{<contract key>}:<role>`: the braces put both in one slot of a Redis Cluster, so that they can change in one step.
"""

from typing import Final, NamedTuple

from schemas.families import LAST_SYNC
from schemas.keys import slot_key

_VERSION: Final = "v2"
"""Version of the format. Version 1 (before 0.2.0) had no prefix: see `etl.checkpoint.upgrade`."""


class StateKeys(NamedTuple):
    """The keys of one collection; the first eight in the order of KEYS in `lua/commit.lua`."""

    fence: str
    checkpoint: str
    deferred: str
    dead_letters: str
    queues: str
    history: str
    published: str
    reconciliation_due: str
    lease: str
    leader: str
    reconciliation: str
    reconciliation_lease: str
    backfill_fence: str
    backfill: str
    backfill_lease: str
    follow_fence: str
    follow: str
    follow_lease: str


def of_backfill(keys: StateKeys) -> StateKeys:
    """The keys of a backfill: fence, checkpoint and lease of its own; the others are shared."""
    return keys._replace(fence=keys.backfill_fence, checkpoint=keys.backfill, lease=keys.backfill_lease)


def of_follower(keys: StateKeys) -> StateKeys:
    """The keys of a follower: fence, checkpoint and lease of its own; the others are shared."""
    return keys._replace(fence=keys.follow_fence, checkpoint=keys.follow, lease=keys.follow_lease)


def state_keys(collection: str, namespace: str = "") -> StateKeys:
    """All state keys of `collection`, except the registers of documents and contract keys.

    The `namespace` separates installations that share one Redis. Their watermarks too: a cycle without a checkpoint
    resumes from the published one, so it must not be that of the other installation.
    """
    published = LAST_SYNC.key(collection=f"{namespace}/{collection}" if namespace else collection)
    roles = {
        role: slot_key(published, f"{_VERSION}:{role}") for role in StateKeys._fields if role != "published"
    }
    return StateKeys(published=published, **roles)


def owner_key(key: str) -> str:
    """The owner register of a contract key: see `lua/apply.lua`."""
    return f"{{{key}}}:owner"


def record_key(document: str) -> str:
    """The record of a document: see `lua/record.lua`."""
    return f"etl:record:{document}"


def requests_key(queue: str) -> str:
    """The record of the requests to a queue: see `lua/enqueue.lua`."""
    return f"{{{queue}}}:requests"
