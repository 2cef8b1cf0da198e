"""Documents of the kind `generacion`, generated from a seed: a number always gives the same document.

Each is one segment of one campaign with three messages in Spanish, about 820 bytes of BSON. Neighbours in time
belong to different campaigns, so that a page has many locks to look at.
"""

import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final, NamedTuple

from bson import ObjectId

Document = dict[str, Any]

MEAN_BYTES: Final = 820
"""The mean size of a plain document as BSON."""


class Shape(NamedTuple):
    """A kind of collection."""

    name: str
    documents_a_key: int = 1
    """Number of documents that claim the same two keys. They are not neighbours, but several are in one page."""
    embedding: int = 0
    """Number of floats in a field outside the contract, 13 bytes each."""
    mapped: bool = False
    """Whether the fields have other names, one level deeper, and are read by `MAPPING`."""

    def claim(self, number: int) -> int:
        """The number of the pair of keys that a document claims."""
        block, place = divmod(number, self.documents_a_key**2)
        return block * self.documents_a_key + place % self.documents_a_key

    def newest(self, number: int, count: int) -> int:
        """The newest of the first `count` documents that claim the same keys as this one."""
        first = number - number % self.documents_a_key**2
        last = min(first + self.documents_a_key**2, count) - 1
        return last - (last - number) % self.documents_a_key


PLAIN: Final = Shape("plain")
LARGE: Final = Shape("12 KB beside the contract", embedding=940)
SHARED: Final = Shape("100 documents per key", documents_a_key=100)
MAPPED: Final = Shape("mapped from other names", mapped=True)

MAPPING: Final[Document] = {
    "tipo": {"$literal": "generacion"},
    "campana_id": "$campaign.id",
    "segmento": "$campaign.segment",
    "estado": {"$cond": ["$ready", "generado", "pendiente"]},
    "eliminado": {"$not": ["$active"]},
    "mensajes": {
        "$map": {"input": "$texts", "as": "t", "in": {"numero": "$$t.n", "texto": "$$t.t", "tono": "$$t.s"}}
    },
    "metadata": "$costs.metadata",
}
"""The fields of the contract from a document of the shape `MAPPED`."""

_SEED: Final = 20_250_115
_FIRST: Final = datetime(2025, 1, 15, 10, 30, tzinfo=UTC)
_CAMPAIGNS: Final = 2_003  # a prime, so that neighbours differ also in their country and their year of birth
_BULK: Final = range(50)  # of every thousand documents these were written by one bulk update, at one moment
_MACHINE: Final = bytes.fromhex("a1b2c3d4e5")

_COUNTRIES: Final = (
    "Costa Rica",
    "México",
    "Perú",
    "Panamá",
    "Colombia",
    "Argentina",
    "República Dominicana",
)
_GENDERS: Final = ("masculino", "femenino", "todos")
_TONES: Final = ("profesional", "casual", "motivacional", "cercano", "urgente")
_THEMES: Final = ("tech", "aventura", "educación", "salud", "música", "café", "viajes")
_OPENINGS: Final = (
    "Domina Arenal con energía",
    "¿Trail en Chirripó? Tu cuerpo puede más",
    "Tu próximo récord empieza hoy",
    "Mañana es tarde: súmate a la campaña",
    "El corazón de Cartagena te está esperando",
    "Aprende sin límites, desde tu celular",
)
_MIDDLES: Final = (
    "un plan que miles de jóvenes ya eligieron",
    "rutas, sabores y música que solo aquí hay",
    "únete y recibe consejos pensados para ti",
    "elige tu ritmo y celebra cada pequeño logro",
    "ahorra con las herramientas de los mejores",
)
_CLOSINGS: Final = (
    "Inscríbete hoy y el primer mes es gratis.",
    "Cupos limitados: reserva tu lugar ahora.",
    "Más información en nuestra página.",
    "¡Te esperamos, no faltes!",
)


def documents(start: int, stop: int, shape: Shape = PLAIN) -> Iterator[Document]:
    """The documents of these numbers as they are inserted, in the order of `(updated_at, _id)`."""
    for number in range(start, stop):
        yield stored(number, shape)


def document(number: int, shape: Shape = PLAIN) -> Document:
    """The document of one number."""
    claim = shape.claim(number)
    random = Random(_SEED + claim)
    theme, segment = random.choice(_THEMES), _segment(random, claim)
    random.seed(_SEED - 1 - number)
    updated_at = moment(number)
    made = {
        "_id": _id(number, updated_at),
        "tipo": "generacion",
        "campana_id": f"camp_2025_{theme}_{claim % _CAMPAIGNS}",
        "segmento": segment,
        "estado": "generado",
        "mensajes": [_message(random, numero) for numero in (1, 2, 3)],
        "metadata": _metadata(random, updated_at),
        "updated_at": updated_at,
    }
    if shape.embedding:
        made["embedding"] = [random.random() for _ in range(shape.embedding)]
    return made


def stored(number: int, shape: Shape = PLAIN) -> Document:
    """The same document as it is inserted."""
    made = document(number, shape)
    if not shape.mapped:
        return made
    return {
        "_id": made["_id"],
        "campaign": {"id": made["campana_id"], "segment": made["segmento"]},
        "ready": True,
        "active": True,
        "texts": [{"n": one["numero"], "t": one["texto"], "s": one["tono"]} for one in made["mensajes"]],
        "costs": {"metadata": made["metadata"]},
        "updated_at": made["updated_at"],
    }


def moment(number: int) -> datetime:
    """The date of the document with this number: 37 ms after the previous one, or the same."""
    thousand, rest = divmod(number, 1000)
    return _FIRST + timedelta(milliseconds=37 * (1000 * thousand + max(rest, _BULK[-1])))


def _id(number: int, updated_at: datetime) -> ObjectId:
    """An ObjectId as drivers make them: seconds, machine, counter. Within a second they ascend with the number."""
    seconds = struct.pack(">I", int(updated_at.timestamp()))
    return ObjectId(seconds + _MACHINE + struct.pack(">I", number % 2**24)[1:])


def _segment(random: Random, number: int) -> str:
    age = random.randrange(18, 60)
    country, gender = random.choice(_COUNTRIES), random.choice(_GENDERS)
    return f"{country}_{age}-{age + 7}_{gender}_{number // _CAMPAIGNS}"


def _message(random: Random, numero: int) -> Document:
    parts = (random.choice(_OPENINGS), random.choice(_MIDDLES), random.choice(_CLOSINGS))
    return {"numero": numero, "texto": "{}: {}. {}".format(*parts), "tono": random.choice(_TONES)}


def _metadata(random: Random, updated_at: datetime) -> Document:
    tokens = random.randrange(400, 4000)
    return {
        "tokens_total": tokens,
        "cost_total_usd": tokens / 100_000,
        "tiempo_total_ms": random.randrange(2_000, 20_000),
        "segmentos_procesados": 3,
        "fecha_generacion": updated_at - timedelta(seconds=5),
    }
