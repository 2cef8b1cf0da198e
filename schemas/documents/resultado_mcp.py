"""`tipo: resultado_mcp`: the cached answer of a tool of an MCP server."""

from typing import Annotated, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from schemas.documents.fields import AnyField, DateField, Name, NumberField, Params, TextField, WholeField
from schemas.documents.one_hash import one_hash
from schemas.families import MCP_TOOL


class Identity(TypedDict):
    """The call."""

    server: Name
    tool: Name
    params: Annotated[Params, Field(default_factory=dict)]


class Fields(TypedDict):
    """Its answer."""

    result: AnyField
    timestamp: NotRequired[DateField | None]
    tokens_used: NotRequired[WholeField | None]
    cost_usd: NotRequired[NumberField | None]
    segmento: NotRequired[TextField | None]


KIND = one_hash(tipo="resultado_mcp", family=MCP_TOOL, identity=Identity, fields=Fields, name_field="server")
