"""What a page is made of: which index will do, where a page ends, what lies beyond a position.

Pure, so that the source is left with what talks to MongoDB.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from schemas.codec import RawValue
from schemas.position import Position

PAGE_BYTES: Final = 8 * 1024 * 1024
"""A page ends early once its documents weigh this much, so that large ones stay few in memory."""


def usable(index: Mapping[str, Any], wanted: list[tuple[str, int]]) -> bool:
    """Whether the index holds every document in the order wanted."""
    partial = {"partialFilterExpression", "sparse", "collation", "hidden"} & index.keys()
    return [tuple(pair) for pair in index["key"]] == wanted and not partial


def split(batches: Iterable[Any]) -> Iterator[bytes]:
    """The documents of batches (bytes, whatever the driver types them as): each begins with its length.

    A `RawBSONDocument` of each, which the driver would make, takes ten times as long.
    """
    for batch in batches:
        start = 0
        while start < len(batch):
            end = start + int.from_bytes(batch[start : start + 4], "little")
            yield batch[start:end]
            start = end


def gather(found: Iterable[bytes], limit: int, weight: int = PAGE_BYTES) -> tuple[list[bytes], bool]:
    """Up to `limit` documents or `weight` bytes, and whether there may be more."""
    documents: list[bytes] = []
    for raw in found:
        documents.append(raw)
        weight -= len(raw)
        if len(documents) >= limit or weight <= 0:
            return documents, True
    return documents, False


def beyond(operator: str, moment: Mapping[str, Any], position: Position) -> dict[str, Any]:
    """An aggregation expression for "the pair is greater (or less) than `position`", over all types."""
    timestamp, document_id = {"$literal": position.timestamp}, {"$literal": position.id}
    tie = {"$and": [{"$eq": [moment, timestamp]}, {operator: ["$_id", document_id]}]}
    return {"$or": [{operator: [moment, timestamp]}, tie]}


def faithful(position: Position) -> bool:
    """Whether the position is the index key itself, and the driver can send it."""
    return not position.is_array() and not any(isinstance(part, RawValue) for part in position)
