"""Upgrade of the state of version 0.1 in Redis: take its leases, convert the queue records, remove the rest.

Version 0.1 kept its state under `{etl:last_sync:<collection>}:<role>`. Its hashes of owned keys are removed by UNLINK,
which does not block Redis, and everything is read once. Its records of queued documents are converted, so that no
request is pushed a second time.
"""

import logging
import re
from collections.abc import Iterator
from typing import Final

from etl import logs
from etl.cache.client import Wire, mapping
from etl.cache.keys import StateKeys, requests_key
from etl.checkpoint.purge import scan
from schemas.keys import slot_key

_log = logging.getLogger("etl")

_OWNER: Final = "promptcontent-etl 0.2"
_SCAN_COUNT: Final = 500
_DATED: Final = re.compile(r"(-?\d+) \S")


def upgrade(wire: Wire, collection: str, source: str, keys: StateKeys) -> bool:
    """Upgrade the state of a collection, if there is any; return whether there was.

    A running daemon of version 0.1 loses its lease: its fencing token is not the newest any more, and its lease key is
    never released. The upgrade may be repeated after an interruption at any point.

    Args:
        wire: the connection to Redis.
        collection: the name of the collection, as version 0.1 wrote it into queue records.
        source: the prefix of the names of its documents.
        keys: its keys of this version.

    Raises:
        EtlError: Redis does not answer, or refuses.
    """
    published = keys.published
    old = {role: slot_key(published, role) for role in ("fence", "lease", "backfill_fence", "backfill_lease")}
    checkpoint, queues = slot_key(published, "checkpoint"), slot_key(published, "queues")
    if not any(wire.exchange([("EXISTS", checkpoint), ("EXISTS", slot_key(published, "backfill"))])):
        return False
    _log.warning(
        "state of version 0.1 found: everything is read once (a cold start)", extra=logs.event("upgrade")
    )
    wire.exchange([("SET", key, _OWNER) for key in old.values()])
    for queue in wire.exchange([("SMEMBERS", queues)])[0]:
        for document, version in _hash_fields(wire, slot_key(queue, "enqueued")):
            _convert(wire, queue, collection, source, document, version)
        wire.exchange([("UNLINK", slot_key(queue, "enqueued"))])
    kept = {*old.values(), checkpoint}
    for key in scan(wire, slot_key(published, "")):
        if key not in kept and not key.startswith(slot_key(published, "v2:")):
            wire.exchange([("UNLINK", key)])
    wire.exchange([("UNLINK", published, checkpoint)])  # last: until then the upgrade is repeated
    return True


def _convert(wire: Wire, queue: str, collection: str, source: str, document: str, version: str) -> None:
    """Convert the record of a queued document.

    A long version was stored as a digest, which cannot be converted: its request may be pushed again.
    """
    name, _, document_id = document.partition(" ")
    if name == collection and (match := _DATED.match(version)):
        wire.exchange([("HSETNX", requests_key(queue), f"{source} {document_id}", f"0 {match[1]}")])


def _hash_fields(wire: Wire, key: str) -> Iterator[tuple[str, str]]:
    cursor = "0"
    while True:
        [(cursor, page)] = wire.exchange([("HSCAN", key, cursor, "COUNT", _SCAN_COUNT)])
        yield from mapping(page).items()
        if cursor == "0":
            return
