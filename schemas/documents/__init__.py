"""The kinds of documents, chosen by `tipo`: one file each.

A new kind is one file here that exports `KIND` (see `schemas.documents.kind`), and its name below; or a module
outside of the package, which `register` adds (see `etl.settings.kinds`).
"""

from collections.abc import Iterable
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

KINDS: Final[dict[str, Kind]] = {kind.tipo: kind for kind in _KINDS}
"""Every kind of document, by its `tipo`; only `register` changes it."""

FAMILIES: Final[dict[str, Family]] = {
    family.name: family for families in (CONTRACT, *(kind.families for kind in _KINDS)) for family in families
}
"""Every family by name: first those of the users' design, then those of other kinds; only `register` changes it."""


def register(kinds: Iterable[Kind]) -> None:
    """Add kinds and their families; a kind that is registered already is skipped.

    Raises:
        ValueError: another kind has the same `tipo`, or another family has the same name or could have the same keys.
    """
    for kind in kinds:
        if KINDS.get(kind.tipo) is kind:
            continue
        if kind.tipo in KINDS:
            raise ValueError(f"another kind has the tipo {kind.tipo}")
        for family in kind.families:
            clashing = next((other for other in FAMILIES.values() if _clash(family, other)), None)
            if clashing is not None:
                raise ValueError(f"the keys {family.pattern} may be those of the family {clashing.name}")
            if family.prefix.partition(":")[0] in _RESERVED:
                raise ValueError(f"the keys {family.pattern} may be the ETL's own: begin with another word")
        KINDS[kind.tipo] = kind
        FAMILIES.update({family.name: family for family in kind.families})


_RESERVED: Final = frozenset({"", "etl"})


def _clash(family: Family, other: Family) -> bool:
    """Whether the families have the same name, or could have the same key: no component contains a colon."""
    parts, other_parts = family.pattern.split(":"), other.pattern.split(":")
    same = all(x == y or "{" in x + y for x, y in zip(parts, other_parts, strict=False))
    return family.name == other.name or (len(parts) == len(other_parts) and same)


def fields() -> tuple[str, ...]:
    """The top-level fields that any kind uses; empty if a kind does not name its fields."""
    kinds = KINDS.values()
    if not all(kind.fields for kind in kinds):
        return ()
    return tuple(dict.fromkeys(("tipo", "eliminado", *(field for kind in kinds for field in kind.fields))))


def family_of(key: str) -> Family | None:
    """The family of a key: the one with the longest matching prefix; None for a key outside the contract."""
    matching = [family for family in FAMILIES.values() if key.startswith(family.prefix)]
    return max(matching, key=lambda family: len(family.prefix), default=None)


def project(document: Document, default_tipo: str, most_digits: int | None = None) -> Projection | Reject:
    """The operations of a decoded document, or why it cannot be applied.

    A document without `tipo` is of `default_tipo`. This never raises, and a `Reject` contains no value of the
    document.

    Args:
        document: the document with at least the fields of its kind.
        default_tipo: the kind of documents without `tipo`.
        most_digits: maximum number of characters of all its numbers together; None for no limit.
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
