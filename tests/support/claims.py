"""Changes of one contract key, as arguments of CacheWriter.apply."""

from typing import Any

from bson import ObjectId

from etl.cache.keys import owner_key
from etl.cache.writer import Applied, CacheWriter, KeyWrite, WriteConflict
from etl.model.result import TransformResult
from schemas.operations import Evict, Put
from tests.support.batches import KEY, status_put
from tests.support.results import result

OWNER = owner_key(KEY)
ABOUT = 2_000_000  # microseconds that a slow machine may lose
NOTHING = Applied([], [], 0, [], [])
IDS = [ObjectId(f"{number:024x}") for number in range(20)]


def claim(document_id: Any, ms: int = 1_000, text: str | None = None) -> KeyWrite:
    """A document claims the key."""
    return change(document_id, status_put(text or f"{document_id} {ms}"), ms)


def leave(document_id: Any, ms: int = 1_000) -> KeyWrite:
    """A document leaves the key."""
    return change(document_id, None, ms)


def change(document_id: Any, write: Put | Evict | None, ms: int = 1_000) -> KeyWrite:
    """The change of the key by a document."""
    version = result(document_id, ms=ms)
    return KeyWrite(version.document, line(version), write)


def line(version: TransformResult) -> str:
    """The text by which the scripts compare versions."""
    return f"{version.timestamp} {version.document}"


def name(document_id: Any) -> str:
    """The name of a document."""
    return result(document_id).document


def apply(writer: CacheWriter, *changes: KeyWrite, read_at: int | None = None, key: str = KEY) -> Applied:
    """Apply changes of the key, by default of documents that are read now."""
    return writer.apply({key: changes}, [], read_at or writer.now(), 100)


def blocked(document_id: Any = None, *, holds: bool = False) -> Applied:
    """The reply if the key was not changed: this document decides and is not in the call, or a read was too old."""
    return NOTHING._replace(conflicts=[WriteConflict(KEY, name(document_id) if document_id else "", holds)])
