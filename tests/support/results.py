"""Transform results made of entries."""

from collections.abc import Mapping
from typing import Any

from etl.model.result import TransformResult
from schemas.documents import FAMILIES
from schemas.ids import id_text
from schemas.operations import Enqueue, Entry, Evict, Keep, Put, Reject
from tests.support.assembly import NAME

TTLS = {name: family.ttl for name, family in FAMILIES.items()}
"""The default TTL of each family in seconds."""


def result(
    document_id: Any, *entries: Entry, ms: int = 1_000, lock: str | None = None, source: str = NAME
) -> TransformResult:
    """The result of a valid document with these entries."""
    return TransformResult(
        f"{source} {id_text(document_id)}",
        str(ms),
        ms,
        tuple(entry for entry in entries if isinstance(entry, (Put, Evict))),
        tuple(entry for entry in entries if isinstance(entry, Enqueue)),
        tuple(entry for entry in entries if isinstance(entry, Keep)),
        lock,
    )


def rejected(document_id: Any, reason: str = "invalid fields", ms: int = 1_000) -> TransformResult:
    """The result of an invalid document."""
    return TransformResult(f"{NAME} {id_text(document_id)}", str(ms), ms, reject=Reject(reason))


def hash_of(entry: Entry) -> Mapping[str, str]:
    """The fields of an entry that writes a hash."""
    assert isinstance(entry, Put)
    assert isinstance(entry.value, Mapping)
    return entry.value
