"""`tipo: generacion`: the messages for one segment of a campaign, or a request for them.

With every `estado` a document is deferred while `lock:content_generation:{campana_id}` exists: the campaign is
being generated.
"""

from operator import itemgetter
from typing import Annotated, Literal, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from schemas.documents.fields import DateField, JsonText, Name, NumberField, Whole, WholeField
from schemas.documents.kind import Document, Kind, invalid, validated
from schemas.documents.one_hash import present
from schemas.families import CAMPAIGN_MESSAGES, GENERATION_LOCK, GENERATION_META, GENERATION_QUEUE
from schemas.keys import component, segmento_hash
from schemas.operations import Enqueue, Entry, Evict, Keep, Projection, Put
from schemas.values import plain_json


class Identity(TypedDict):
    """Campaign and segment."""

    campana_id: Name
    segmento: Name


class Message(TypedDict):
    """One message; its fields reach Redis in this order."""

    numero: Whole
    texto: JsonText
    tono: JsonText


class Metadata(TypedDict):
    """Cost of the generation."""

    tokens_total: NotRequired[WholeField | None]
    cost_total_usd: NotRequired[NumberField | None]
    tiempo_total_ms: NotRequired[WholeField | None]
    segmentos_procesados: NotRequired[WholeField | None]
    fecha_generacion: NotRequired[DateField | None]


class Generado(Identity):
    """Messages."""

    mensajes: Annotated[list[Message], Field(min_length=1, strict=True)]
    metadata: NotRequired[Metadata | None]


class Pendiente(Identity):
    """A request for messages."""

    prioridad: NotRequired[Literal["alta", "media", "baja"] | None]


_NUMERO = itemgetter("numero")

_IDENTITY: TypeAdapter[Identity] = TypeAdapter(Identity)
_GENERADO: TypeAdapter[Generado] = TypeAdapter(Generado)
_PENDIENTE: TypeAdapter[Pendiente] = TypeAdapter(Pendiente)


def _generado(document: Document) -> Projection:
    valid = validated(_GENERADO, document)
    # Hot path of a backfill: encode each component once for all three keys.
    campana_id, segmento = component(valid["campana_id"]), segmento_hash(valid["segmento"])
    messages = CAMPAIGN_MESSAGES.written(campana_id, segmento)
    entries = (
        Put(CAMPAIGN_MESSAGES.name, messages, _members(valid["mensajes"])),
        _meta(GENERATION_META.written(campana_id, segmento), valid.get("metadata")),
    )
    return Projection(entries, lock=GENERATION_LOCK.written(campana_id))


def _members(messages: list[Message]) -> list[bytes]:
    messages.sort(key=_NUMERO)
    if len(set(map(_NUMERO, messages))) < len(messages):
        raise invalid("mensajes", "should hold each numero once")
    return plain_json(messages)


def _meta(key: str, metadata: Metadata | None) -> Put | Evict:
    fields = present(metadata or {})
    # Without metadata, remove the metadata of an earlier generation.
    return Put(GENERATION_META.name, key, fields) if fields else Evict(GENERATION_META.name, key)


def _pendiente(document: Document) -> Projection:
    valid = validated(_PENDIENTE, document)
    key = GENERATION_QUEUE.key(priority=valid.get("prioridad") or "media")
    identity = {"campana_id": valid["campana_id"], "segmento": valid["segmento"]}
    [item] = plain_json([identity])
    # Its earlier messages stay until they are replaced or expire.
    kept = (Keep(family.name, family.key(**identity)) for family in _FAMILIES)
    return _locked(valid, Enqueue(GENERATION_QUEUE.name, key, item.decode()), *kept)


def _archivado(document: Document) -> Projection:
    valid = validated(_IDENTITY, document)
    return _locked(valid, *(Evict(family.name, family.key(**valid)) for family in _FAMILIES))


def _locked(valid: Identity, *entries: Entry) -> Projection:
    return Projection(entries, lock=GENERATION_LOCK.key(campana_id=valid["campana_id"]))


_FAMILIES = (CAMPAIGN_MESSAGES, GENERATION_META)
_BY_ESTADO = {"generado": _generado, "pendiente": _pendiente, "archivado": _archivado}


def _warm(document: Document) -> Projection:
    estado = document.get("estado")
    if estado is None:
        return _generado(document)
    if not isinstance(estado, str) or estado not in _BY_ESTADO:
        raise invalid("estado", f"should be one of {', '.join(_BY_ESTADO)}")
    return _BY_ESTADO[estado](document)


KIND = Kind(
    tipo="generacion",
    families=(*_FAMILIES, GENERATION_QUEUE),
    warm=_warm,
    evict=_archivado,
    name_field="campana_id",
    fields=("campana_id", "segmento", "estado", "mensajes", "metadata", "prioridad"),
)
