"""A survey of the collections of a database for `etl init`: names and types of fields, and indexes."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from pymongo import MongoClient, errors

from etl.mongo.client import translated_errors
from schemas.codec import DECODING, type_name

SAMPLE: Final = 50
"""Number of documents that are sampled per collection."""

_DEPTH: Final = 3
_ON_A_VIEW: Final = 166


class Survey(NamedTuple):
    """A collection, or a view."""

    name: str
    documents: int
    """The approximate number of documents."""
    sampled: int
    fields: Mapping[str, Counter[str]]
    """Number of sampled documents with each field, by type. Paths are dotted; `a[].b` for documents in an array."""
    tipos: frozenset[str]
    """The texts in the field `tipo`."""
    indexes: list[Mapping[str, Any]]


def survey(client: MongoClient[dict[str, Any]], database: str) -> list[Survey]:
    """Survey every collection, in the order of their names, by a random sample of each.

    Raises:
        EtlError: MongoDB does not answer, or refuses.
    """
    with translated_errors(client, database):
        listed = client[database].list_collections(filter={"type": {"$in": ["collection", "view"]}})
        names = sorted(one["name"] for one in listed if not one["name"].startswith("system."))
        return [_survey(client, database, name) for name in names]


def _survey(client: MongoClient[dict[str, Any]], database: str, name: str) -> Survey:
    collection = client[database].get_collection(name, codec_options=DECODING)
    sample = [*collection.aggregate([{"$sample": {"size": SAMPLE}}])]
    fields: dict[str, Counter[str]] = {}
    for document in sample:
        for path, kind in dict.fromkeys(_paths(document)):
            fields.setdefault(path, Counter())[kind] += 1
    tipos = frozenset(document["tipo"] for document in sample if isinstance(document.get("tipo"), str))
    try:
        indexes = [*collection.list_indexes()]
    except errors.OperationFailure as error:
        if error.code != _ON_A_VIEW:
            raise
        indexes = []
    return Survey(name, collection.estimated_document_count(), len(sample), fields, tipos, indexes)


def _paths(document: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """The path and type of each field, except names that cannot be part of a path."""
    for name, value in document.items():
        if not name or "." in name or name.startswith("$"):
            continue
        path = prefix + name
        yield path, type_name(value)
        if depth < _DEPTH and isinstance(value, dict):
            yield from _paths(value, f"{path}.", depth + 1)
        elif depth < _DEPTH and isinstance(value, list):
            for inner in value:
                if isinstance(inner, dict):
                    yield from _paths(inner, f"{path}[].", depth + 1)
