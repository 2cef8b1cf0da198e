"""Documents: the users' samples, a valid one of each kind, and many of them."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bson
from bson import json_util

from schemas.codec import DECODING
from tests.support.types import Document

DATA = Path(__file__).parent / "data"

MOMENT = datetime(2025, 1, 15, 10, 30, tzinfo=UTC)

LATEST = timedelta(seconds=60)
"""The age of the youngest document of `delta`: it may be put behind the watermark of a running cycle."""


def samples() -> list[Document]:
    """The users' sample documents."""
    found: list[Document] = json_util.loads((DATA / "sample_documents.json").read_text("utf-8"))
    return found


def expected() -> dict[str, Any]:
    """The entry of each key that the samples become: type, TTL in seconds, value; with `etl:last_sync`."""
    found: dict[str, Any] = json.loads((DATA / "sample_expected.json").read_text("utf-8"))
    return found


def expected_of_documents() -> dict[str, Any]:
    """The same without `etl:last_sync`, which no document fills."""
    return {key: entry for key, entry in expected().items() if not key.startswith("etl:")}


def decoded(document: Document) -> Document:
    """The document after a round trip through BSON, as a collection returns it."""
    found: Mapping[str, Any] = bson.decode(bson.encode(document, codec_options=DECODING), DECODING)
    return dict(found)


def generacion(**changes: Any) -> Document:
    """A valid `generacion` with these fields changed."""
    message = {"numero": 1, "texto": "hola", "tono": "casual"}
    return {"tipo": "generacion", "campana_id": "c", "segmento": "s", "mensajes": [message]} | changes


def resultado_mcp(**changes: Any) -> Document:
    """A valid `resultado_mcp` with these fields changed."""
    return {"tipo": "resultado_mcp", "server": "content", "tool": "getContent", "result": []} | changes


def estado_servidor(**changes: Any) -> Document:
    """A valid `estado_servidor` with these fields changed."""
    return {"tipo": "estado_servidor", "server_name": "content", "status": "active"} | changes


def integracion_api(**changes: Any) -> Document:
    """A valid `integracion_api` with these fields changed."""
    return {"tipo": "integracion_api", "provider_name": "openai", "status": "active"} | changes


def cliente_mcp(**changes: Any) -> Document:
    """A valid `cliente_mcp` with these fields changed."""
    return {"tipo": "cliente_mcp", "client_name": "web", "tools_acceso": [], "estado": "activo"} | changes


VALID = {
    make.__name__: make for make in (generacion, resultado_mcp, estado_servidor, integracion_api, cliente_mcp)
}
"""The factory of each `tipo`."""


def api(name: str, updated_at: Any, **changes: Any) -> Document:
    """An `integracion_api`, which fills the key `config:api:{name}` only."""
    return integracion_api(provider_name=name, updated_at=updated_at) | changes


def campaign(campana_id: str, updated_at: Any, **changes: Any) -> Document:
    """A `generacion` with one message, of segment `s`, which fills a list and a hash."""
    return generacion(campana_id=campana_id, updated_at=updated_at) | changes


def generation(number: int, moment: datetime, **changes: Any) -> Document:
    """The campaign `c{number}`, whose `_id` and metadata are the number."""
    return campaign(f"c{number}", moment, _id=number, metadata={"tokens_total": number}) | changes


def written(name: str, version: int, moment: datetime) -> Document:
    """A campaign whose messages are written: two keys, all of whose fields contain the version."""
    return {
        "_id": name,
        "campana_id": name,
        "segmento": "Jóvenes 18-25",
        "mensajes": [{"numero": n, "texto": f"texto {version}", "tono": "casual"} for n in (1, 2, 3)],
        "metadata": {"tokens_total": version, "cost_total_usd": version / 8},
        "updated_at": moment,
    }


def requested(name: str, moment: datetime) -> Document:
    """A campaign whose messages are requested: one item of the queue `alta`."""
    request = {"campana_id": name, "segmento": "Jóvenes 18-25", "estado": "pendiente", "prioridad": "alta"}
    return {"_id": name, **request, "updated_at": moment}


def delta(count: int, *, prefix: str = "camp", version: int = 1) -> Sequence[Document]:
    """`count` campaigns, every other one requested, a millisecond apart and the last one `LATEST` ago."""
    end = datetime.now(UTC) - LATEST
    moments = (end - timedelta(milliseconds=count - number) for number in range(count))
    return [
        requested(f"{prefix}-{number}", moment)
        if number % 2
        else written(f"{prefix}-{number}", version, moment)
        for number, moment in enumerate(moments)
    ]
