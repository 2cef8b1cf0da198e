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
    [collection_queues] = wire.exchange([("SMEMBERS", own.queues)])
    others = [key for key in scan(wire, f"{{{LAST_SYNC.prefix}", ":queues") if key != own.queues]
    shared = {queue for members in wire.exchange([("SMEMBERS", key) for key in others]) for queue in members}
    own_queues = sorted(set(collection_queues) - shared)
    records = [*scan(wire, f"{record_key(source)} "), *map(requests_key, own_queues)]
    candidates = [*own, *(own_queues if queues else ()), *records]
    exist = wire.exchange([("EXISTS", key) for key in candidates])
    return sorted({key for key, exists in zip(candidates, exist, strict=True) if exists})


def delete(wire: Wire, keys: Sequence[str]) -> int:
    """Delete these keys; return how many existed.

    Raises:
        EtlError: Redis does not answer, or refuses.
    """
    batches = [keys[start : start + _KEYS_AT_A_TIME] for start in range(0, len(keys), _KEYS_AT_A_TIME)]
    # One command for each key: in a Redis Cluster the keys are in different slots.
    return sum(sum(wire.exchange([("UNLINK", key) for key in batch])) for batch in batches)


def scan(wire: Wire, prefix: str, suffix: str = "") -> list[str]:
    """All keys with this prefix and suffix, sorted.

    Raises:
        EtlError: Redis does not answer, or refuses.
    """
    literal = re.sub(r"([\\*?\[\]])", r"\\\1", prefix)
    cursor, keys = "0", set[str]()
    while True:
        [(cursor, page)] = wire.exchange(
            [("SCAN", cursor, "MATCH", f"{literal}*{suffix}", "COUNT", _SCAN_COUNT)]
        )
        keys.update(page)
        if cursor == "0":
            return sorted(keys)
