"""`tipo: integracion_api`: status, limits and endpoints of an API; credentials are never copied."""

from typing import NotRequired

from typing_extensions import TypedDict

from schemas.documents.fields import DateField, LimitField, ListField, Name, TextField
from schemas.documents.one_hash import one_hash
from schemas.families import CONFIG_API


class Identity(TypedDict):
    """The provider."""

    provider_name: Name


class Fields(TypedDict):
    """Status, limits and endpoints."""

    status: TextField
    rate_limit: NotRequired[LimitField | None]
    endpoints: NotRequired[ListField | None]
    last_updated: NotRequired[DateField | None]


KIND = one_hash(
    tipo="integracion_api",
    family=CONFIG_API,
    identity=Identity,
    fields=Fields,
    name_field="provider_name",
)
