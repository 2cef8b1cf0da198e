"""What one document asks of the cache: the vocabulary between the document kinds and the cache.

A kind turns a valid document into entries; the cache carries them out. Nothing here does I/O.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Put(NamedTuple):
    """Replace `key` as a whole by `value`: a mapping becomes a Redis hash, a sequence a list.

    The members of a list may be texts or their UTF-8, as the writer of JSON gives them.
    """

    family: str
    key: str
    value: Mapping[str, str] | Sequence[str | bytes]

    @property
    def read(self) -> dict[str, str] | list[str]:
        """The value as Redis gives it back: texts only."""
        if isinstance(self.value, Mapping):
            return dict(self.value)
        return [member if isinstance(member, str) else member.decode() for member in self.value]


class Evict(NamedTuple):
    """Remove `key`: its document is archived, deleted, or carries nothing for it."""

    family: str
    key: str


class Enqueue(NamedTuple):
    """Push `item` to the list `key`, once per version of the document."""

    family: str
    key: str
    item: str


class Keep(NamedTuple):
    """Leave `key` as it is: what the document wrote to it before stays until that is replaced or expires.

    It claims nothing anew: where the document has not written the key, any other document may.
    """

    family: str
    key: str


class FieldError(NamedTuple):
    """One thing that is wrong with a document: where (`mensajes.0.numero`) and what."""

    field: str
    problem: str


class Reject(NamedTuple):
    """The document cannot be applied. Carries no value of the document, so it may be logged."""

    reason: str
    errors: tuple[FieldError, ...] = ()


Entry = Put | Evict | Enqueue | Keep


class Projection(NamedTuple):
    """What a valid document becomes: its entries, and the lock that holds them back, if any.

    `lock` is the full key of a `lock:content_generation`: while that key exists, the document
    is being generated anew and none of its entries may be written.
    """

    entries: tuple[Entry, ...]
    lock: str | None = None
