"""The most common kind: each document fills one hash."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from schemas.documents.kind import Document, Kind, validated
from schemas.families import Family
from schemas.operations import Evict, Projection, Put


def one_hash(*, tipo: str, family: Family, identity: Any, fields: Any, name_field: str) -> Kind:
    """A kind whose documents fill one hash of `family` each.

    `identity` is a TypedDict of the parts of the key, `fields` one of the fields of the hash in their
    order, each validated to its text; an optional field that is absent or null is left out.
    """
    identities: TypeAdapter[Mapping[str, Any]] = TypeAdapter(identity)
    hashes: TypeAdapter[Mapping[str, Any]] = TypeAdapter(fields)

    def key(document: Document) -> str:
        return family.key(**validated(identities, document))

    def warm(document: Document) -> Projection:
        return Projection((Put(family.name, key(document), present(validated(hashes, document))),))

    def evict(document: Document) -> Projection:
        return Projection((Evict(family.name, key(document)),))

    names = (*identity.__annotations__, *fields.__annotations__)
    return Kind(tipo, (family,), warm, evict, name_field, names)


def present(fields: Mapping[str, Any]) -> Mapping[str, str]:
    """The fields of the document without those that are null."""
    if None not in fields.values():
        return fields
    return {name: value for name, value in fields.items() if value is not None}
