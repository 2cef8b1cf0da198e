"""The ETL's own keys of a collection, to uninstall it."""

import re
from collections.abc import Sequence
from typing import Final

from etl.cache.client import Wire
from etl.cache.keys import StateKeys, record_key, requests_key
from etl.errors import LeaseHeldError
from schemas.families import LAST_SYNC

_SCAN_COUNT: Final = 1000
_KEYS_AT_A_TIME: Final = 100


def own_keys(wire: Wire, own: StateKeys, source: str, *, queues: bool) -> list[str]:
    """The keys of the ETL's own state for this collection, sorted.

    Cache entries and their owner registers are not included, because they expire. The records of requests to a queue
    are included unless another collection pushes to that queue too; with `queues` also the queue and its requests.

    Args:
        wire: the connection to Redis.
        own: the keys of the collection.
        source: the prefix of the names of its documents.
        queues: whether to include the queues.

    Raises:
        LeaseHeldError: another holder works on the collection.
        EtlError: Redis does not answer, or refuses.
    """
    for lease in (own.leader, own.lease, own.backfill_lease, own.follow_lease):
        holder, left = wire.exchange([("GET", lease), ("PTTL", lease)])
        if holder is not None:
            raise LeaseHeldError(holder, max(0, left) / 1000)
    [fed] = wire.exchange([("SMEMBERS", own.queues)])
    state = _scan(wire, f"{{{LAST_SYNC.prefix}*")
    others = [key for key in state if key.endswith(":queues") and key != own.queues]
    shared = {queue for members in wire.exchange([("SMEMBERS", key) for key in others]) for queue in members}
    mine = sorted(set(fed) - shared)
    names = [key for key in own if key != own.published]
    found = [*_scan(wire, f"{_literal(record_key(source))} *"), *(requests_key(queue) for queue in mine)]
    candidates = [*names, own.published, *(mine if queues else ()), *found]
    exist = wire.exchange([("EXISTS", key) for key in candidates]) if candidates else []
    return sorted({key for key, there in zip(candidates, exist, strict=True) if there})


def delete(wire: Wire, keys: Sequence[str]) -> int:
    """Delete these keys; return how many existed.

    Raises:
        EtlError: Redis does not answer, or refuses.
    """
    parts = [keys[start : start + _KEYS_AT_A_TIME] for start in range(0, len(keys), _KEYS_AT_A_TIME)]
    # One command each: in a Redis Cluster they are in different slots.
    return sum(sum(wire.exchange([("UNLINK", key) for key in part])) for part in parts)


def _scan(wire: Wire, pattern: str) -> list[str]:
    cursor, keys = "0", set[str]()
    while True:
        [(cursor, found)] = wire.exchange([("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_COUNT)])
        keys.update(found)
        if cursor == "0":
            return sorted(keys)


def _literal(text: str) -> str:
    """A Redis pattern that matches only this text."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", text)
