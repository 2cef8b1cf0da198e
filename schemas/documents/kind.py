"""What a kind of document is: the extension point of the product.

A new kind is one file beside this one, exporting `KIND`, and one line in `schemas.documents`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from schemas.families import Family
from schemas.operations import FieldError, Projection

Document = Mapping[str, Any]
"""A decoded BSON document."""

_Valid = TypeVar("_Valid")

# A dead letter stays small, also when each of a million array items is wrong.
_MOST_ERRORS = 20


class InvalidDocument(ValueError):
    """The document cannot be applied; neither the reason nor the errors quote a value of it."""

    def __init__(self, reason: str, errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of document: the families it fills, and how.

    `warm` turns a valid document into entries; `evict` does so for a tombstone, of which only the
    fields that name its keys need to be there. Both raise `InvalidDocument`. `name_field` is the
    field that `etl refresh FAMILY NAME` looks a document up by. `fields` are the top-level fields that
    the two look at, beside `tipo` and `eliminado`: no others are read from MongoDB, unless none are named.
    """

    tipo: str
    families: tuple[Family, ...]
    warm: Callable[[Document], Projection]
    evict: Callable[[Document], Projection]
    name_field: str | None = None
    fields: tuple[str, ...] = ()

    def project(self, document: Document) -> Projection:
        """What the document asks of the cache; for one with `eliminado: true`, that its keys go.

        Raises:
            InvalidDocument: it cannot be applied.
        """
        eliminado = document.get("eliminado")
        if eliminado is None or eliminado is False:
            return self.warm(document)
        if eliminado is True:
            return self.evict(document)
        raise invalid("eliminado", "should be true or false")


def invalid(field: str, problem: str) -> InvalidDocument:
    """The error that says what is wrong with one field."""
    return InvalidDocument("invalid fields", (FieldError(field, problem),))


def validated(model: TypeAdapter[_Valid], document: Document) -> _Valid:
    """The fields of `model` that the document has, each in the form the model gives it.

    Raises:
        InvalidDocument: a required field is missing, or one does not fit; it names each of them.
    """
    try:
        # The adapter's own method adds 0.4 microseconds of options that nothing here uses.
        return model.validator.validate_python(document)  # type: ignore[no-any-return]
    except ValidationError as error:
        raise InvalidDocument("invalid fields", _field_errors(error)) from None


def _field_errors(error: ValidationError) -> tuple[FieldError, ...]:
    details = error.errors(include_url=False, include_context=False, include_input=False)
    return tuple(
        FieldError(".".join(map(str, detail["loc"])), detail["msg"].removeprefix("Value error, "))
        for detail in details[:_MOST_ERRORS]
    )
