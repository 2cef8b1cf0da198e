"""The index that a collection is read by, and the mongosh command that fixes a missing one. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from etl.model.index import Index

_PARTIAL: Final = frozenset({"partialFilterExpression", "sparse", "collation"})


def wanted(timestamp_field: str) -> list[tuple[str, int]]:
    """The fields of the index."""
    return [(timestamp_field, 1), ("_id", 1)]


def candidates(indexes: Iterable[Mapping[str, Any]], timestamp_field: str) -> list[Mapping[str, Any]]:
    """The indexes that contain every document in the order of positions; they may be hidden or still being built."""
    return [
        index
        for index in indexes
        if [*index["key"].items()] == wanted(timestamp_field) and not _PARTIAL & index.keys()
    ]


def missing(namespace: str, timestamp_field: str) -> Index:
    """No suitable index exists; one can be created."""
    # Not MongoDB's default name: an unsuitable index on the same fields may have that.
    options = f"{{name: 'etl_{timestamp_field}', collation: {{locale: 'simple'}}}}"
    command = f"createIndex({{{timestamp_field!r}: 1, '_id': 1}}, {options})"
    return Index(
        None, f"no index holds all of it in the order of ({timestamp_field}, _id)", _in(namespace, command)
    )


def hidden(namespace: str, name: str) -> Index:
    """The index exists but is hidden from queries."""
    return Index(None, f"its index {name} is hidden", _in(namespace, f"unhideIndex({name!r})"))


def building(name: str) -> Index:
    """The index is listed, but queries cannot use it."""
    return Index(None, f"its index {name} cannot be used, probably as it is still being built")


def unsupported() -> Index:
    """A view or a time-series collection: an index does not help, because the server refuses `min`."""
    return Index(None, "a view or a time-series collection cannot be read by an index")


def _in(namespace: str, command: str) -> str:
    database, _, collection = namespace.partition(".")
    return f"db.getSiblingDB({database!r}).getCollection({collection!r}).{command}"
