"""The ETL's own keys of a collection, for whoever uninstalls it."""

import re
from collections.abc import Sequence
from typing import Final

from etl.cache.client import Wire
from etl.cache.keys import companions
from etl.errors import Locked
from schemas.families import LAST_SYNC
from schemas.keys import companion

_SCAN_COUNT: Final = 1000
_KEYS_A_COMMAND: Final = 100  # no reader of Redis waits for the rest


def own_keys(wire: Wire, collection: str, *, queues: bool) -> list[str]:
    """The keys that Redis holds only because of this collection's ETL, sorted.

    Entries of the cache are not among them: they expire. The notes about a queue are, unless another
    collection feeds it too; with `queues` also the queue itself, with the requests that wait in it.

    Raises:
        Locked: somebody works on the collection.
        EtlError: Redis is away, or refuses.
    """
    own = companions(collection)
    leases = wire.exchange([("GET", own.lease), ("GET", own.backfill_lease)])
    for holder in filter(None, leases):
        raise Locked(f"being synced by {holder.partition(' ')[2]}: stop it first")
    [fed] = wire.exchange([("SMEMBERS", own.queues)])
    state = _scan(wire, f"{{{LAST_SYNC.prefix}*")
    others = [key for key in state if key.endswith("}:queues") and key != own.queues]
    shared = {queue for members in wire.exchange([("SMEMBERS", key) for key in others]) for queue in members}
    mine = sorted(set(fed) - shared)
    found = [key for key in state if key.startswith(companion(own.published, ""))]
    found += [key for queue in mine for key in _scan(wire, f"{_literal(companion(queue, ''))}*")]
    candidates = [own.published, *(mine if queues else ())]
    exist = wire.exchange([("EXISTS", key) for key in candidates])
    return sorted({*found, *(key for key, there in zip(candidates, exist, strict=True) if there)})


def delete(wire: Wire, keys: Sequence[str]) -> int:
    """Delete these keys; returns how many there still were.

    Raises:
        EtlError: Redis is away, or refuses.
    """
    starts = range(0, len(keys), _KEYS_A_COMMAND)
    return sum(wire.exchange([("UNLINK", *keys[start : start + _KEYS_A_COMMAND])])[0] for start in starts)


def _scan(wire: Wire, pattern: str) -> list[str]:
    cursor, keys = "0", set[str]()
    while True:
        [(cursor, found)] = wire.exchange([("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_COUNT)])
        keys.update(found)
        if cursor == "0":
            return sorted(keys)


def _literal(text: str) -> str:
    """A pattern of Redis that matches this text only."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", text)
