"""The kinds of documents, chosen by `tipo`: one file each.

A new kind is one file here that exports `KIND` (see `schemas.documents.kind`), and its name below.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Final

from schemas.documents.kind import Document, InvalidDocument, Kind
from schemas.families import CONTRACT, Family
from schemas.operations import FieldError, Projection, Reject
from schemas.values import digits

_FILES: Final = (
    "generacion",
    "resultado_mcp",
    "estado_servidor",
    "integracion_api",
    "cliente_mcp",
)

# By name, so that a kind takes one line here.
_KINDS: Final[tuple[Kind, ...]] = tuple(import_module(f"{__name__}.{file}").KIND for file in _FILES)

KINDS: Final[Mapping[str, Kind]] = {kind.tipo: kind for kind in _KINDS}
"""Every kind of document, by its `tipo`."""

FAMILIES: Final[Mapping[str, Family]] = {
    family.name: family for families in (CONTRACT, *(kind.families for kind in _KINDS)) for family in families
}
"""Every family by name: those of the users' design first, then those of other kinds."""

FIELDS: Final[tuple[str, ...]] = (
    tuple(dict.fromkeys(("tipo", "eliminado", *(field for kind in _KINDS for field in kind.fields))))
    if all(kind.fields for kind in _KINDS)
    else ()
)
"""The top-level fields that documents of any kind are made of; none where a kind does not name its own."""


def family_of(key: str) -> Family | None:
    """The family of a key: the one with the longest matching prefix; None for a key outside the contract."""
    matching = [family for family in FAMILIES.values() if key.startswith(family.prefix)]
    return max(matching, key=lambda family: len(family.prefix), default=None)


def project(document: Document, default_tipo: str, most_digits: int | None = None) -> Projection | Reject:
    """The operations of a decoded document, or why it cannot be applied.

    A document without `tipo` is of `default_tipo`. This never raises, and a `Reject` contains no value of the
    document.

    Args:
        document: with the fields of its kind at least.
        default_tipo: the kind of documents without `tipo`.
        most_digits: characters that its numbers may take together; None for a document too small to matter.
    """
    try:
        kind = _kind(document, default_tipo)
        if most_digits is not None and _digits(document, kind) > most_digits:
            return Reject(f"its numbers would take more than {most_digits:,} bytes of Redis")
        return kind.project(document)
    except InvalidDocument as invalid:
        return Reject(invalid.reason, invalid.errors)
    except RecursionError:
        return Reject("nested too deeply")
    except ValueError:
        # An unexpected error of a kind. Its text is left out: it may quote the document.
        return Reject("a value has no form in Redis")


def _digits(document: Document, kind: Kind) -> int:
    return sum(digits(document.get(field)) for field in kind.fields or document)


def _kind(document: Document, default_tipo: str) -> Kind:
    tipo = document.get("tipo")
    kind = KINDS.get(default_tipo if tipo is None else tipo if isinstance(tipo, str) else "")
    if kind is None:
        raise InvalidDocument("unknown tipo", (FieldError("tipo", f"should be one of {', '.join(KINDS)}"),))
    return kind
