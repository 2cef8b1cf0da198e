"""`tipo: cliente_mcp`: permissions and limits of an MCP client."""

from typing import NotRequired

from typing_extensions import TypedDict

from schemas.documents.fields import LimitField, ListField, Name, TextField, WholeField
from schemas.documents.one_hash import one_hash
from schemas.families import CONFIG_CLIENT


class Identity(TypedDict):
    """The client."""

    client_name: Name


class Fields(TypedDict):
    """Its permissions and limits."""

    tools_acceso: ListField
    rate_limit: NotRequired[LimitField | None]
    max_requests_hora: NotRequired[WholeField | None]
    estado: TextField


KIND = one_hash(
    tipo="cliente_mcp",
    family=CONFIG_CLIENT,
    identity=Identity,
    fields=Fields,
    name_field="client_name",
)
