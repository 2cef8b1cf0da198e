"""The documents of the model: few, so that they share keys, campaigns and timestamps.

Each has an `_id`, of all types that MongoDB orders differently, and an identity that it keeps unless
it moves to the key of another.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from bson import Binary, Int64, ObjectId

Fields = dict[str, Any]


@dataclass(frozen=True)
class Slot:
    """A document with fixed `_id` and identity; its other fields vary."""

    number: int
    id: Any
    identity: Mapping[str, Any] = field(repr=False)
    contents: Mapping[str, Callable[[int], Fields]] = field(repr=False)

    def document(self, content: str, number: int) -> Fields:
        """The document with one of its `contents` and a unique number."""
        return {"_id": self.id, **self.identity, **self.contents[content](number)}


def _messages(number: int) -> Fields:
    return {"mensajes": [{"numero": 1, "texto": f"texto {number}", "tono": "casual"}]}


_GENERATION: Final[Mapping[str, Callable[[int], Fields]]] = {
    "put": lambda n: _messages(n) | {"metadata": {"tokens_total": n}},
    "plain": _messages,
    "alta": lambda _: {"estado": "pendiente", "prioridad": "alta"},
    "baja": lambda _: {"estado": "pendiente", "prioridad": "baja"},
    "evict": lambda _: {"estado": "archivado"},
    "tombstone": lambda _: {"eliminado": True},
    "bad": lambda _: {"mensajes": []},
    "move": lambda n: _messages(n) | {"segmento": "t"},
}

_API: Final[Mapping[str, Callable[[int], Fields]]] = {
    "put": lambda n: {"status": f"status {n}"},
    "tombstone": lambda _: {"eliminado": True},
    "bad": lambda _: {"status": 5},
    "move": lambda n: {"status": f"status {n}", "provider_name": "q"},
}


def _generation(number: int, document_id: Any, campaign: str, segment: str) -> Slot:
    return Slot(number, document_id, {"campana_id": campaign, "segmento": segment}, _GENERATION)


def _api(number: int, document_id: Any, name: str) -> Slot:
    return Slot(number, document_id, {"tipo": "integracion_api", "provider_name": name}, _API)


CAMPAIGNS: Final = ("A", "B")

SLOTS: Final = (
    _generation(0, ObjectId("5f5f5f5f5f5f5f5f5f5f5f5f"), "A", "s"),
    _generation(1, 7, "A", "s"),
    _generation(2, "x", "A", "t"),
    _generation(3, Binary.from_uuid(UUID(int=5)), "B", "s"),
    _generation(4, {"a": 1, "b": [2]}, "B", "s"),
    _api(5, ObjectId("5f5f5f5f5f5f5f5f5f5f5f60"), "p"),
    _api(6, "y", "p"),
    _api(7, Int64(9), "p"),
    _api(8, 2.5, "q"),
    _api(9, b"\x00\x01", "q"),
)


def bulk(number: int) -> Slot:
    """One of many independent documents."""
    return _api(100 + number, 100 + number, f"bulk-{number}")
