"""A collection and its reader, real or fake."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from etl.mongo.reader import MongoReader
from schemas.codec import document_of, raw_value
from schemas.position import FIRST, LAST, Position
from tests.support.readers import FakeReader
from tests.support.types import Document


@dataclass
class Store:
    """A collection and its reader."""

    reader: MongoReader | FakeReader
    documents: Any
    add_raw: Callable[[bytes], Any]

    def add(self, *documents: Document) -> None:
        """Insert documents of any types; mongomock itself supports only common ones."""
        for document in documents:
            self.add_raw(document_of((name.encode(), raw_value(value)) for name, value in document.items()))

    def pages(self, limit: int, after: Position = FIRST, end: Position = LAST) -> list[list[bytes]]:
        """All pages from one position to another."""
        pages = []
        while True:
            page = self.reader.page(after, end, limit)
            pages.append(page.documents)
            if not page.more:
                return pages
            assert page.last is not None
            assert page.last.order() > after.order()
            after = page.last
