"""The operations on the cache that a document results in.

A kind projects a valid document to operations; the writer executes them. No I/O.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Put(NamedTuple):
    """Replace `key` as a whole by `value`: a mapping becomes a Redis hash, a sequence a list.

    The members of a list are text or its UTF-8.
    """

    family: str
    key: str
    value: Mapping[str, str] | Sequence[str | bytes]

    @property
    def read(self) -> dict[str, str] | list[str]:
        """The value as read from Redis: text only."""
        if isinstance(self.value, Mapping):
            return dict(self.value)
        return [member if isinstance(member, str) else member.decode() for member in self.value]


class Evict(NamedTuple):
    """Remove `key`: its document is archived, deleted, or has no value for it."""

    family: str
    key: str


class Enqueue(NamedTuple):
    """Push `item` to the list `key`, once per version of the document."""

    family: str
    key: str
    item: str


class Keep(NamedTuple):
    """Leave `key` unchanged: what the document wrote to it stays until it is replaced or expires.

    This is no claim: if the document has not written the key, other documents may.
    """

    family: str
    key: str


class FieldError(NamedTuple):
    """One invalid field: its path (`mensajes.0.numero`) and the problem."""

    field: str
    problem: str


class Reject(NamedTuple):
    """The document cannot be applied. It contains no value of the document, so it may be logged."""

    reason: str
    errors: tuple[FieldError, ...] = ()


Entry = Put | Evict | Enqueue | Keep


class Projection(NamedTuple):
    """The operations of a valid document, and the lock that defers them.

    `lock` is the full key of a `lock:content_generation`: while it exists, none of the operations is executed.
    """

    entries: tuple[Entry, ...]
    lock: str | None = None
