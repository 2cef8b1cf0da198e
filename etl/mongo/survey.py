"""What the collections of a database hold: names and types of fields, and indexes. For `etl init`."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from pymongo import MongoClient, errors

from etl.mongo.client import translated_errors
from schemas.codec import DECODING, type_name

SAMPLE: Final = 50
"""How many documents of a collection are looked at."""

_DEPTH: Final = 3
_ON_A_VIEW: Final = 166


class Survey(NamedTuple):
    """A collection, or a view."""

    name: str
    documents: int
    """About how many there are."""
    sampled: int
    fields: Mapping[str, Counter[str]]
    """How many sampled documents have each field, by type; dotted paths, `a[].b` of the documents in an array."""
    tipos: frozenset[str]
    """The texts of the field `tipo`."""
    indexes: list[Mapping[str, Any]]


def survey(client: MongoClient[dict[str, Any]], database: str) -> list[Survey]:
    """Look at every collection, in the order of their names; reads a random sample of each.

    Raises:
        EtlError: MongoDB does not answer, or refuses.
    """
    with translated_errors(client, database):
        listed = client[database].list_collections(filter={"type": {"$in": ["collection", "view"]}})
        names = sorted(one["name"] for one in listed if not one["name"].startswith("system."))
        return [_look(client, database, name) for name in names]


def _look(client: MongoClient[dict[str, Any]], database: str, name: str) -> Survey:
    collection = client[database].get_collection(name, codec_options=DECODING)
    found = [*collection.aggregate([{"$sample": {"size": SAMPLE}}])]
    fields: dict[str, Counter[str]] = {}
    for document in found:
        for path, kind in dict.fromkeys(_paths(document)):
            fields.setdefault(path, Counter())[kind] += 1
    tipos = frozenset(one["tipo"] for one in found if isinstance(one.get("tipo"), str))
    try:
        indexes = [*collection.list_indexes()]
    except errors.OperationFailure as error:
        if error.code != _ON_A_VIEW:
            raise
        indexes = []
    return Survey(name, collection.estimated_document_count(), len(found), fields, tipos, indexes)


def _paths(document: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """The path and type of each field; names that no path can hold are left out."""
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
