"""Stage 2, the transform: raw documents become outcomes. Pure, so that any executor can run it."""

from collections.abc import Sequence
from typing import NamedTuple

import bson

from etl.batch import Outcome
from schemas.documents import project
from schemas.entries import Reject
from schemas.position import DECODING, LENIENT, position_in


class Transform(NamedTuple):
    """How the documents of one collection are read: a small value that travels to workers."""

    tipo: str
    """The kind of a document that names none."""
    timestamp_field: str

    def __call__(self, documents: Sequence[bytes]) -> list[Outcome]:
        """The outcome of each document, in the same order; a bad one never stops its neighbours."""
        return [self._outcome(raw) for raw in documents]

    def _outcome(self, raw: bytes) -> Outcome:
        try:
            document = bson.decode(raw, DECODING)
        except (bson.errors.BSONError, ValueError, OverflowError) as error:
            return self._undecodable(raw, error)
        position = position_in(document, self.timestamp_field)
        if isinstance(position.timestamp, list):
            # Its index has one entry for each member: no single place in the order, and none to pass.
            return Outcome(position, Reject(f"{self.timestamp_field} is an array"))
        return Outcome(position, project(document, self.tipo))

    def _undecodable(self, raw: bytes, error: Exception) -> Outcome:
        # The driver's message may quote the bytes it stumbled over, so only its type is kept.
        reject = Reject(f"the document cannot be decoded ({type(error).__name__})")
        return Outcome(position_in(bson.decode(raw, LENIENT), self.timestamp_field), reject)
