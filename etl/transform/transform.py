"""Stage 2, transform: raw BSON documents to results; pure, so that any process can run it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import bson

from etl.model.result import MAPPING_ERRORS, TransformResult
from schemas.codec import decode, decode_all
from schemas.documents import project
from schemas.operations import Enqueue, Evict, FieldError, Keep, Put, Reject
from schemas.position import place_in, position_in

# A decimal takes 19 bytes of BSON in an array, and up to 6,178 characters in Redis.
_EXPANSION: Final = 330
_UNDECODABLE: Final = (bson.errors.BSONError, ValueError, OverflowError)


@dataclass(frozen=True, slots=True)
class Transform:
    """The transform of one collection; picklable."""

    collection: str
    tipo: str
    """The kind of documents without `tipo`."""
    timestamp_field: str
    most_bytes: int
    """Maximum of bytes in Redis per document; a larger one is a dead letter."""

    def __call__(self, documents: Sequence[bytes]) -> list[TransformResult]:
        """The result of each document, in the same order; an invalid one does not affect the others."""
        try:
            decoded = decode_all(documents)
        except _UNDECODABLE:
            return [self._alone(raw) for raw in documents]
        return [*map(self._result, documents, decoded)]

    def _alone(self, raw: bytes) -> TransformResult:
        try:
            document = decode(raw)
        except _UNDECODABLE as error:
            # The driver's message may quote the document, so only the type of the error is kept.
            return self._rejected(raw, Reject(f"the document cannot be decoded ({type(error).__name__})"))
        return self._result(raw, document)

    def _result(self, raw: bytes, document: Mapping[str, Any]) -> TransformResult:
        timestamp, ms, document_id = place_in(document, self.timestamp_field, raw)
        if ms is None and position_in(raw, self.timestamp_field).is_array():
            # The index has one entry per member, so the document has no single position.
            return self._rejected(raw, Reject(f"{self.timestamp_field} is an array"))
        # Numbers are counted before they are written as text: 30,000 decimals in 700 KB would take 180 MB.
        most_digits = self.most_bytes if len(raw) * _EXPANSION > self.most_bytes else None
        projection = project(document, self.tipo, most_digits)
        if isinstance(projection, Reject):
            return self._rejected(raw, _unmapped(document) or projection)
        size = len(document_id)
        writes: list[Put | Evict] = []
        pushes: list[Enqueue] = []
        keeps: list[Keep] = []
        for entry in projection.entries:
            if type(entry) is Put:
                _, key, value = entry
                size += len(key) + sum(map(len, value.values() if type(value) is dict else value))
                writes.append(entry)
            elif type(entry) is Enqueue:
                size += len(entry.key) + len(entry.item)
                pushes.append(entry)
            elif type(entry) is Keep:
                size += len(entry.key)
                keeps.append(entry)
            elif type(entry) is Evict:
                size += len(entry.key)
                writes.append(entry)
        if size > self.most_bytes:
            problem = f"it would take {size:,} bytes of Redis, more than transform.document_bytes"
            return self._rejected(raw, Reject(f"{problem} ({self.most_bytes:,})"))
        return TransformResult(
            f"{self.collection} {document_id}",
            timestamp,
            ms,
            tuple(writes),
            tuple(pushes),
            tuple(keeps),
            projection.lock,
            None,
            size,
        )

    def _rejected(self, raw: bytes, reject: Reject) -> TransformResult:
        timestamp, ms, document_id = position_in(raw, self.timestamp_field).place()
        return TransformResult(f"{self.collection} {document_id}", timestamp, ms, reject=reject)


def _unmapped(document: Mapping[str, Any]) -> Reject | None:
    """Why the server could not map a document; None if it could."""
    errors: Mapping[str, str] | None = document.get(MAPPING_ERRORS)
    return Reject("cannot be mapped", tuple(FieldError(*one) for one in errors.items())) if errors else None
