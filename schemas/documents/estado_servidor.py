"""`tipo: estado_servidor`: the health of an MCP server."""

from typing import NotRequired

from typing_extensions import TypedDict

from schemas.documents.fields import DateField, Name, NumberField, TextField, WholeField
from schemas.documents.one_hash import one_hash
from schemas.families import MCP_SERVER_STATUS


class Identity(TypedDict):
    """The server."""

    server_name: Name


class Fields(TypedDict):
    """Its health."""

    status: TextField
    last_health_check: NotRequired[DateField | None]
    requests_last_min: NotRequired[WholeField | None]
    avg_response_time: NotRequired[NumberField | None]
    errors_last_hour: NotRequired[WholeField | None]


KIND = one_hash(
    tipo="estado_servidor",
    family=MCP_SERVER_STATUS,
    identity=Identity,
    fields=Fields,
    name_field="server_name",
)
