"""Check the Redis types of the ETL's own keys."""

from collections.abc import Iterator, Mapping
from shlex import quote
from typing import Final

from etl.cache.client import Wire
from etl.cache.keys import StateKeys, requests_key
from etl.doctor.finding import Finding, note, ok, problem
from etl.errors import EtlError
from schemas.families import GENERATION_QUEUE, LAST_SYNC

TYPES: Final[Mapping[str, str]] = {
    "fence": "string",
    "checkpoint": "hash",
    "deferred": "hash",
    "dead_letters": "hash",
    "queues": "set",
    "history": "list",
    "published": LAST_SYNC.type,
    "reconciliation_due": "string",
    "lease": "string",
    "leader": "string",
    "reconciliation": "string",
    "reconciliation_lease": "string",
    "backfill_fence": "string",
    "backfill": "hash",
    "backfill_lease": "string",
    "follow_fence": "string",
    "follow": "hash",
    "follow_lease": "string",
}
"""The Redis type of each key of a collection, by its role in `StateKeys`."""


def examine(wire: Wire, collections: Mapping[str, StateKeys]) -> Iterator[Finding]:
    """Check the keys of each collection and of its queues; a note if Redis refuses."""
    for collection, keys in collections.items():
        try:
            yield from _collection(wire, collection, keys)
        except EtlError as error:
            yield note("keys", collection, f"not checked: {error}")


def _collection(wire: Wire, collection: str, keys: StateKeys) -> Iterator[Finding]:
    wanted: dict[str, str] = {getattr(keys, role): kind for role, kind in TYPES.items()}
    for queue in _queues(wire, keys):
        wanted |= {queue: GENERATION_QUEUE.type, requests_key(queue): "hash"}
    kinds = wire.exchange([("TYPE", key) for key in wanted])
    odd = [(key, kind) for key, kind in zip(wanted, kinds, strict=True) if kind not in {wanted[key], "none"}]
    if not odd:
        yield ok("keys", collection, "every key of the ETL has the right type")
    for key, kind in odd:
        yield _wrong_type(key, kind, wanted[key])


def _queues(wire: Wire, keys: StateKeys) -> list[str]:
    """The queues that the collection has pushed to; none if the key that lists them has another type."""
    [kind] = wire.exchange([("TYPE", keys.queues)])
    return sorted(wire.exchange([("SMEMBERS", keys.queues)])[0]) if kind == TYPES["queues"] else []


def _wrong_type(key: str, kind: str, wanted: str) -> Finding:
    text = f"is a {kind}, but the ETL needs a {wanted}: cycles fail or reject documents"
    return problem("keys", key, text, f"redis-cli RENAME {quote(key)} {quote(f'{key}:moved-away')}")
