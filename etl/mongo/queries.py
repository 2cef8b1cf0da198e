"""The commands that read documents, and the parsing of their replies. Pure.

Values are inserted as raw BSON, so that a position may contain any value that MongoDB can store.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument

from etl.model.result import MAPPING_ERRORS
from schemas.codec import ARRAY, DOCUMENT, RawValue, decode, document_of, elements, python_value, raw_value
from schemas.position import Position, position_of

PAGE_BYTES: Final = 8 * 1024 * 1024
"""A page ends early once its documents reach this size, which bounds memory."""

Fields = Mapping[str, Any]
"""A projection; empty for whole documents."""

NOTHING: Final[Fields] = {"_id": False, "n": {"$literal": 1}}
"""A projection to a minimal document, for counting."""

_INDEX_KEY: Final = "etl index key"
_SORT_KEY: Final = "etl sort key"
_SIMPLE: Final = {"locale": "simple"}
_BATCHES: Final = frozenset({b"firstBatch", b"nextBatch"})


def by_index(
    index: str, timestamp_field: str, begin: Position, end: Position, fields: Fields
) -> dict[str, Any]:
    """The options of `find` for the documents from `begin` (inclusive) to `end` (exclusive) by index bounds.

    Bounds compare whole `(timestamp, _id)` pairs across all BSON types, whereas `$gt` in a filter matches values of
    one type only and would skip the other types of `_id`. There is no sort: once the timestamp of any document is an
    array, MongoDB would sort the whole range in memory, and by the smallest member of the array. (A router needs one:
    see `MongoCollection`.)
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
    """The projection that also returns the key of the index entry of each document."""
    return {**fields, _INDEX_KEY: {"$meta": "indexKey"}}


def split_key(document: bytes) -> tuple[bytes, Position]:
    """The document without the key that `with_index_key` has added, and the position in that key."""
    *fields, (_, _, key) = elements(document)
    timestamp, document_id = (python_value(RawValue(kind, data)) for kind, _, data in elements(key))
    rest = document_of((name, RawValue(kind, data)) for kind, name, data in fields)
    return rest, position_of(timestamp, document_id)


def expression(value: Any) -> Mapping[str, Any]:
    """The value as an aggregation expression: in a projection, a bare number, boolean or `$slice` is an instruction."""
    return {"$let": {"vars": {}, "in": value}}


def matching(criteria: Mapping[str, Sequence[Any]], mapping: Fields) -> dict[str, Any]:
    """The filter for documents whose fields, mapped ones by their expressions, have one of these values each."""
    plain = {name: {"$in": [*values]} for name, values in criteria.items() if name not in mapping}
    mapped = [
        {"$in": [{"$ifNull": [mapping[name], None]}, {"$literal": [*values]}]}
        for name, values in criteria.items()
        if name in mapping
    ]
    return plain | ({"$expr": {"$and": mapped}} if mapped else {})


def meets(document: bytes, criteria: Mapping[str, Sequence[Any]]) -> bool:
    """Whether the fields of a document have one of these values each; True if it was not mapped or decoded."""
    try:
        decoded = decode(document)
    except (BSONError, ValueError, OverflowError):
        return True
    return MAPPING_ERRORS in decoded or all(decoded.get(name) in values for name, values in criteria.items())


def by_sort(timestamp_field: str, after: Position, end: Position, limit: int, fields: Fields) -> list[Any]:
    """The pipeline that sorts the documents between two positions; expressions compare across BSON types too."""
    path = f"${timestamp_field}"
    # Not $ifNull: it would turn `undefined` into null, which sorts after it.
    timestamp = {"$cond": [{"$eq": [{"$type": path}, "missing"]}, None, path]}
    between = {"$and": [_beyond("$gt", timestamp, after), _beyond("$lt", timestamp, end)]}
    # Inside an object an array is compared as a whole, not by its smallest member.
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


def extended(document: bytes, fields: Mapping[str, Any]) -> bytes:
    """The document with further fields at its end."""
    own = [(name, RawValue(kind, data)) for kind, name, data in elements(document)]
    return document_of([*own, *((name.encode(), raw_value(value)) for name, value in fields.items())])


def batch_in(reply: RawBSONDocument) -> tuple[int, list[bytes]]:
    """The id of the cursor in a reply, and its documents as bytes.

    Building a `RawBSONDocument` of each document takes ten times as long.
    """
    cursor = next(data for _, name, data in elements(bytes(reply.raw)) if name == b"cursor")
    fields = {name: data for _, name, data in elements(cursor)}
    batch = next(fields[name] for name in _BATCHES if name in fields)
    return int.from_bytes(fields[b"id"], "little", signed=True), [one for _, _, one in elements(batch)]


def gather(source: Iterable[bytes], limit: int, max_bytes: int = PAGE_BYTES) -> tuple[list[bytes], bool]:
    """Up to `limit` documents or `max_bytes` bytes, and whether more may follow."""
    documents: list[bytes] = []
    for raw in source:
        documents.append(raw)
        max_bytes -= len(raw)
        if len(documents) >= limit or max_bytes <= 0:
            return documents, True
    return documents, False


def _beyond(operator: str, timestamp: Mapping[str, Any], position: Position) -> dict[str, Any]:
    """An aggregation expression for "the pair is greater (or less) than `position`", over all types."""
    moment, document_id = (_document({"$literal": part}) for part in position)
    tie = {"$and": [{"$eq": [timestamp, moment]}, {operator: ["$_id", document_id]}]}
    return {"$or": [{operator: [timestamp, moment]}, tie]}


def _document(fields: Mapping[str, Any]) -> RawBSONDocument:
    return RawBSONDocument(document_of((name.encode(), raw_value(value)) for name, value in fields.items()))
