"""A page of documents as MongoDB stores them."""

from typing import NamedTuple

from schemas.position import Position


class Page(NamedTuple):
    """Raw documents in index order."""

    documents: list[bytes]
    last: Position | None
    """The position of the last document, to continue from; None without documents."""
    more: bool
    """Whether further documents may follow."""
