"""The result of the transform of one document."""

from typing import NamedTuple

from schemas.operations import Enqueue, Evict, Keep, Put, Reject
from schemas.position import Position, position_from_text

GONE = "gone"
"""The timestamp of a document that does not exist any more."""


MAPPING_ERRORS = "etl mapping errors"
"""The field of a document that could not be mapped: what is wrong, by contract field. It has no `tipo` that exists."""


class TransformResult(NamedTuple):
    """The operations of one version of a document; text and numbers only, so that it can be pickled."""

    document: str
    """Its name among the documents of all collections: `<collection> <_id as canonical Extended JSON>`."""
    timestamp: str
    """Its date as `schemas.position` writes it: milliseconds since the epoch for a date, or `GONE`."""
    ms: int | None
    """The same as a number; None where it is no date."""
    writes: tuple[Put | Evict, ...] = ()
    pushes: tuple[Enqueue, ...] = ()
    keeps: tuple[Keep, ...] = ()
    """Keys that it leaves unchanged if it has written them before."""
    lock: str | None = None
    """The key of the lock that defers it."""
    reject: Reject | None = None
    """Why it cannot be applied."""
    size: int = 0
    """Approximate bytes of its `_id`, its keys and their members."""

    @property
    def id(self) -> str:
        """Its `_id` as canonical Extended JSON."""
        return self.document.partition(" ")[2]

    @property
    def position(self) -> Position:
        """Its position in the index."""
        return position_from_text(f"{self.timestamp} {self.id}")


def gone(document: str) -> TransformResult:
    """The result of a document that does not exist any more."""
    return TransformResult(document, GONE, None)
