"""The commands that read documents, and what is in their replies. Pure.

Values are put in as BSON, so that a position may be of any value that MongoDB holds.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from bson.raw_bson import RawBSONDocument

from schemas.codec import ARRAY, DOCUMENT, RawValue, document_of, elements, python_value, raw_value
from schemas.position import Position, position_of

PAGE_BYTES: Final = 8 * 1024 * 1024
"""A page ends early once its documents weigh this much, so that large ones stay few in memory."""

Fields = Mapping[str, Any]
"""A projection; an empty one for whole documents."""

NOTHING: Final[Fields] = {"_id": False, "n": {"$literal": 1}}
"""The projection that makes every document small, to count them."""

_INDEX_KEY: Final = "etl index key"
_SORT_KEY: Final = "etl sort key"
_SIMPLE: Final = {"locale": "simple"}
_BATCHES: Final = frozenset({b"firstBatch", b"nextBatch"})


def by_index(
    index: str, timestamp_field: str, begin: Position, end: Position, fields: Fields
) -> dict[str, Any]:
    """What finds the documents from `begin` on and before `end` by the bounds of the index.

    The bounds compare whole pairs over every BSON type: a `$gt` in a filter would bracket by type and hide
    the other types of `_id`. There is no sort: once a document has an array for its timestamp, MongoDB would
    not sort by the index, but all of the range, and by the least member. (A router needs one: see `Source`.)
    """
    lower, upper = (_document({timestamp_field: one.timestamp, "_id": one.id}) for one in (begin, end))
    return {
        "filter": {},
        "hint": index,
        "min": lower,
        "max": upper,
        "projection": fields,
        "collation": _SIMPLE,
    }


def with_index_key(fields: Fields) -> Fields:
    """The projection that adds the key of the index entry by which a document was found."""
    return {**fields, _INDEX_KEY: {"$meta": "indexKey"}}


def split_key(document: bytes) -> tuple[bytes, Position]:
    """The document without what `with_index_key` has added, and the position that this is."""
    *fields, (_, _, key) = elements(document)
    timestamp, document_id = (python_value(RawValue(kind, data)) for kind, _, data in elements(key))
    rest = document_of((name, RawValue(kind, data)) for kind, name, data in fields)
    return rest, position_of(timestamp, document_id)


def by_sort(timestamp_field: str, after: Position, end: Position, limit: int, fields: Fields) -> list[Any]:
    """The pipeline that sorts the documents between two positions; expressions do not bracket either."""
    path = f"${timestamp_field}"
    # Not $ifNull: that makes null of `undefined`, which sorts before it.
    timestamp = {"$cond": [{"$eq": [{"$type": path}, "missing"]}, None, path]}
    between = {"$and": [_beyond("$gt", timestamp, after), _beyond("$lt", timestamp, end)]}
    # As the field of an object: there an array is compared as a whole, and not by its least member.
    key = {_SORT_KEY: {"value": timestamp}}
    return [
        {"$match": {"$expr": between}},
        {"$project": {**fields, **key}} if fields else {"$set": key},
        {"$sort": {_SORT_KEY: 1, "_id": 1}},
        {"$limit": limit},
        {"$unset": _SORT_KEY},
    ]


def by_id(ids: Sequence[Any]) -> RawBSONDocument:
    """The filter for the documents with these `_id`s."""
    wanted = RawValue(ARRAY, document_of((str(n).encode(), raw_value(one)) for n, one in enumerate(ids)))
    return _document({"_id": RawValue(DOCUMENT, document_of([(b"$in", wanted)]))})


def documents_in(cursor: RawBSONDocument) -> list[bytes]:
    """The documents in the batch of a reply.

    A `RawBSONDocument` of each, which the driver would make, takes ten times as long.
    """
    batch = next(data for _, name, data in elements(bytes(cursor.raw)) if name in _BATCHES)
    return [document for _, _, document in elements(batch)]


def gather(found: Iterable[bytes], limit: int, weight: int = PAGE_BYTES) -> tuple[list[bytes], bool]:
    """Up to `limit` documents or `weight` bytes, and whether there may be more."""
    documents: list[bytes] = []
    for raw in found:
        documents.append(raw)
        weight -= len(raw)
        if len(documents) >= limit or weight <= 0:
            return documents, True
    return documents, False


def _beyond(operator: str, timestamp: Mapping[str, Any], position: Position) -> dict[str, Any]:
    """An aggregation expression for "the pair is greater (or less) than `position`", over all types."""
    moment, document_id = (_document({"$literal": part}) for part in position)
    tie = {"$and": [{"$eq": [timestamp, moment]}, {operator: ["$_id", document_id]}]}
    return {"$or": [{operator: [timestamp, moment]}, tie]}


def _document(fields: Mapping[str, Any]) -> RawBSONDocument:
    return RawBSONDocument(document_of((name.encode(), raw_value(value)) for name, value in fields.items()))
