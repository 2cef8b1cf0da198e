"""Reading a collection page by page."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
from pymongo.collection import Collection

from etl.mongo.reader import MongoReader
from schemas.position import FIRST, LAST, Position
from tests.support.types import Document

NOON = datetime(2025, 1, 15, 12, tzinfo=UTC)
INDEX = [("updated_at", 1), ("_id", 1)]


def dated(number: int, **more: Any) -> Document:
    """A document; the greater its number, the newer."""
    return {"_id": number, "updated_at": NOON + timedelta(seconds=number)} | more


def source(collection: Collection[Any], field: str = "updated_at", fields: Sequence[str] = ()) -> MongoReader:
    """A reader of this collection that has looked for its index."""
    reader = MongoReader(collection.database.client, collection.database.name, collection.name, field, fields)
    reader.prepare()
    return reader


def pages(reader: MongoReader, limit: int, after: Position = FIRST) -> Iterator[list[bytes]]:
    """All pages from a position on; checks that each one advances."""
    while True:
        page = reader.page(after, LAST, limit)
        yield page.documents
        if not page.more:
            return
        assert page.last is not None
        assert page.last.order() > after.order()
        after = page.last


def ids(documents: Sequence[bytes]) -> list[Any]:
    """The `_id`s of these documents."""
    return [bson.decode(raw)["_id"] for raw in documents]


def all_ids(reader: MongoReader, limit: int) -> list[Any]:
    """The `_id`s of all documents, in order."""
    return [document_id for page in pages(reader, limit) for document_id in ids(page)]
