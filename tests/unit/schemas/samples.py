"""The users' sample documents as they come out of MongoDB, and valid documents to spoil."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bson
from bson import json_util

from schemas.codec import DECODING
from schemas.operations import Entry, Put

_DATA = Path(__file__).parents[2] / "data"


def decoded(document: dict[str, Any]) -> dict[str, Any]:
    """The document after a round trip through BSON, as a collection gives it back."""
    plain: Mapping[str, Any] = bson.decode(bson.encode(document, codec_options=DECODING), DECODING)
    return dict(plain)


def documents() -> list[dict[str, Any]]:
    """`sample_documents.json`."""
    text = (_DATA / "sample_documents.json").read_text(encoding="utf-8")
    return [decoded(document) for document in json_util.loads(text)]


def expected() -> dict[str, Any]:
    """`sample_expected.json`, key by key, but for `etl:last_sync`, which no document fills."""
    entries = json.loads((_DATA / "sample_expected.json").read_text(encoding="utf-8"))
    return {key: entry for key, entry in entries.items() if not key.startswith("etl:last_sync:")}


def hash_of(entry: Entry) -> Mapping[str, str]:
    """The fields of an entry that writes a hash."""
    assert isinstance(entry, Put)
    assert isinstance(entry.value, Mapping)
    return entry.value


MOMENT = datetime(2025, 1, 15, 10, 30, tzinfo=UTC)


def generacion(**changes: Any) -> dict[str, Any]:
    """A valid `generacion` with these fields changed."""
    message = {"numero": 1, "texto": "Domina Arenal", "tono": "casual"}
    return {"tipo": "generacion", "campana_id": "c", "segmento": "s", "mensajes": [message]} | changes


def resultado_mcp(**changes: Any) -> dict[str, Any]:
    """A valid `resultado_mcp` with these fields changed."""
    return {"tipo": "resultado_mcp", "server": "content", "tool": "getContent", "result": []} | changes


def estado_servidor(**changes: Any) -> dict[str, Any]:
    """A valid `estado_servidor` with these fields changed."""
    return {"tipo": "estado_servidor", "server_name": "content", "status": "active"} | changes


def integracion_api(**changes: Any) -> dict[str, Any]:
    """A valid `integracion_api` with these fields changed."""
    return {"tipo": "integracion_api", "provider_name": "openai", "status": "active"} | changes


def cliente_mcp(**changes: Any) -> dict[str, Any]:
    """A valid `cliente_mcp` with these fields changed."""
    return {"tipo": "cliente_mcp", "client_name": "web", "tools_acceso": [], "estado": "activo"} | changes


VALID = {
    make.__name__: make for make in (generacion, resultado_mcp, estado_servidor, integracion_api, cliente_mcp)
}
"""How to make a valid document of each `tipo`."""
