"""The ETL's own keys in Redis, named after the contract key they change together with.

`{etl:last_sync:<collection>}:<role>`: the braces put them in one slot of a Redis Cluster.
"""

from typing import NamedTuple

from schemas.families import LAST_SYNC
from schemas.keys import companion


class Companions(NamedTuple):
    """The keys of one collection; the first ten in the order of KEYS in `lua/commit.lua`."""

    fence: str
    checkpoint: str
    seen: str
    claims: str
    claimants: str
    deferred: str
    dead_letters: str
    queues: str
    history: str
    published: str
    lease: str
    leader: str
    turnstile: str
    backfill_fence: str
    backfill: str
    backfill_lease: str
    reconciliation: str


def of_backfill(own: Companions) -> Companions:
    """The keys as a backfill uses them: a fence, checkpoint and lease of its own; all else is shared."""
    return own._replace(fence=own.backfill_fence, checkpoint=own.backfill, lease=own.backfill_lease)


def companions(collection: str) -> Companions:
    """All keys that the ETL keeps for `collection`."""
    published = LAST_SYNC.key(collection=collection)
    roles = {role: companion(published, role) for role in Companions._fields if role != "published"}
    return Companions(published=published, **roles)
