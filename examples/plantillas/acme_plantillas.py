"""`tipo: plantilla`: a text that campaigns start from."""

from typing import NotRequired

from typing_extensions import TypedDict

from schemas.documents.fields import Name, TextField, WholeField
from schemas.documents.one_hash import one_hash
from schemas.families import Family

TEMPLATE = Family(
    name="ai:template",
    pattern="ai:template:{nombre}",
    type="hash",
    ttl=3600,
    fields=("texto", "usos"),
    source="tipo: plantilla",
)


class Identity(TypedDict):
    """The fields that name the key."""

    nombre: Name


class Fields(TypedDict):
    """The fields of the hash, in this order."""

    texto: TextField
    usos: NotRequired[WholeField | None]


KIND = one_hash(tipo="plantilla", family=TEMPLATE, identity=Identity, fields=Fields, name_field="nombre")
