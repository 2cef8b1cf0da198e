"""Reads mapped documents one by one if a mapping fails: an expression that fails for one document fails a command."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from pymongo.read_concern import ReadConcern

from etl.errors import ConfigurationError, CycleFailed
from etl.model.result import MAPPING_ERRORS
from etl.mongo import queries
from etl.mongo.queries import Fields
from schemas.position import Position

_MAJORITY: Final = ReadConcern("majority")


class MappingFallback:
    """Finds the expressions and the documents that fail."""

    def __init__(
        self,
        expressions: Fields,
        fields: Fields,
        setting: str,
        read: Callable[[Sequence[Any], Fields, ReadConcern], list[bytes]],
        position: Callable[[bytes], Position],
    ) -> None:
        """Create the fallback without contacting the server.

        Args:
            expressions: the expression of each mapped field.
            fields: the projection of the reader, which contains them.
            setting: the setting that holds the mapping, for messages.
            read: reads the documents with these `_id`s.
            position: the position of a raw document.
        """
        self._expressions = expressions
        self._fields = fields
        self._setting = setting
        self._read = read
        self._position = position

    def check(self) -> None:
        """Have MongoDB parse the mapping.

        Raises:
            ConfigurationError: it refuses an expression; the message has the setting and MongoDB's own reason.
        """
        error = self._refusal(self._expressions) if self._expressions else None
        if error is not None:
            by_field = {f".{name}": self._refusal({name: value}) for name, value in self._expressions.items()}
            refusals = {name: refusal for name, refusal in by_field.items() if refusal} or {"": error}
            reasons = (f"{self._setting}{name}: {_reason(refusal)}" for name, refusal in refusals.items())
            raise ConfigurationError("; ".join(reasons))

    def mapped(self, bare: Sequence[bytes], level: ReadConcern = _MAJORITY) -> list[bytes]:
        """The current versions of these documents, mapped, in order.

        A document that cannot be mapped has only its position and the field `MAPPING_ERRORS`.
        """
        if not bare:
            return []
        try:
            found = self._read([self._position(raw).id for raw in bare], self._fields, level)
        except CycleFailed as error:
            if len(bare) == 1:
                self.check()
                return [self._unmapped(bare[0], error)]
            middle = len(bare) // 2
            found = self.mapped(bare[:middle], level) + self.mapped(bare[middle:], level)
        return sorted(found, key=lambda raw: self._position(raw).order())

    def _unmapped(self, bare: bytes, error: CycleFailed) -> bytes:
        """The replacement for a document that cannot be mapped: its position, and the expressions that fail."""
        wanted = [self._position(bare).id]
        failed = {name: self._refusal({name: value}, wanted) for name, value in self._expressions.items()}
        errors = {name: self._failure(name, one) for name, one in failed.items() if one}
        text = errors or {"fields": self._failure("", error)}
        return queries.extended(bare, {"tipo": {}, MAPPING_ERRORS: text})

    def _failure(self, name: str, error: CycleFailed) -> str:
        """The name of MongoDB's error, and the operators it names; its message may quote the document."""
        message, operators = _reason(error), re.findall(r"\$\w+", str(self._expressions.get(name)))
        named = [op for op in dict.fromkeys(operators) if re.search(rf"{re.escape(op)}\b", message)]
        code = (getattr(error.__cause__, "details", None) or {}).get("codeName", "error")
        return f"its expression fails for this document: {' '.join((*named, code))}"

    def _refusal(self, fields: Fields, ids: Sequence[Any] = ()) -> CycleFailed | None:
        """The error of a read of these fields; None if there is none."""
        try:
            self._read(ids, fields, _MAJORITY)
        except CycleFailed as error:
            return error
        return None


def _reason(error: CycleFailed) -> str:
    """The reason in MongoDB's own words."""
    details = getattr(error.__cause__, "details", None) or {}
    return str(details.get("errmsg", error)).replace("\n", " ")
