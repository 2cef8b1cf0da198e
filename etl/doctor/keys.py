"""The ETL's own keys: that nobody has put something of another type in their place."""

from collections.abc import Iterator, Mapping, Sequence
from shlex import quote
from typing import Final

from etl.cache.client import Wire
from etl.cache.keys import state_keys
from etl.doctor.finding import Finding, well, wrong
from etl.errors import EtlError
from schemas.families import GENERATION_QUEUE, LAST_SYNC
from schemas.keys import companion

TYPES: Final[Mapping[str, str]] = {
    "fence": "string",
    "checkpoint": "hash",
    "seen": "zset",
    "claims": "zset",
    "claimants": "hash",
    "deferred": "hash",
    "dead_letters": "hash",
    "queues": "set",
    "history": "list",
    "lease": "string",
    "leader": "string",
    "turnstile": "string",
    "backfill_fence": "string",
    "backfill": "hash",
    "backfill_lease": "string",
    "reconciliation": "string",
}
"""The Redis type behind each companion, as `lua/` names them."""


def examine(wire: Wire, collections: Sequence[str]) -> Iterator[Finding]:
    """The keys of each collection, and the queues it feeds; none of a server that is away."""
    for collection in collections:
        try:
            yield from _collection(wire, collection)
        except EtlError:
            return


def _collection(wire: Wire, collection: str) -> Iterator[Finding]:
    published = LAST_SYNC.key(collection=collection)
    wanted: dict[str, str] = {published: LAST_SYNC.type}
    wanted |= {companion(published, role): kind for role, kind in TYPES.items()}
    for queue in _queues(wire, collection):
        wanted |= {queue: GENERATION_QUEUE.type, companion(queue, "enqueued"): "hash"}
    kinds = wire.exchange([("TYPE", key) for key in wanted])
    odd = [(key, kind) for key, kind in zip(wanted, kinds, strict=True) if kind not in {wanted[key], "none"}]
    if not odd:
        yield well("keys", collection, "every key of the ETL is of its type")
    for key, kind in odd:
        yield _wrong_type(key, kind, wanted[key])


def _queues(wire: Wire, collection: str) -> list[str]:
    """The queues that the collection has fed; of a key of another type, nobody knows."""
    key = state_keys(collection).queues
    [kind] = wire.exchange([("TYPE", key)])
    return sorted(wire.exchange([("SMEMBERS", key)])[0]) if kind == TYPES["queues"] else []


def _wrong_type(key: str, kind: str, wanted: str) -> Finding:
    text = f"holds a {kind}, where the ETL keeps a {wanted}: its cycles fail or reject"
    return wrong("keys", key, text, f"redis-cli RENAME {quote(key)} {quote(f'{key}:moved-away')}")
