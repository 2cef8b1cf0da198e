"""A script that a good engineer writes in an afternoon: cursor, pydantic models, redis-py pipelines.

`python -m bench.straightforward MONGO_URI DATABASE COLLECTION REDIS_URL` fills an empty Redis with the very
keys, types, values and TTLs of the product; a test compares them. It shares no code with it.

It is careful: it reads only the fields it needs, in the order of `(updated_at, _id)` so that the newest wins; it
validates everything; a batch is one MULTI (the default of redis-py, some 15 % slower than none), so that no reader sees
half a list; redis-py raises at any error reply. It is fast: an index for its order, large batches both ways, pydantic 2
and hiredis. It lacks the rest of a product: a position to resume from, a lease, the locks of generators, dead letters.
"""

import json
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from itertools import islice
from typing import Annotated, Any, Final
from unicodedata import normalize
from urllib.parse import quote

import redis
from pydantic import BaseModel, Field
from pymongo import MongoClient

BATCH: Final = 1000
"""Documents read at a time and sent in one pipeline."""

TTL: Final = 10_800
"""Three hours, in seconds."""

_FIELDS: Final = ("campana_id", "segmento", "mensajes", "metadata")
_ENCODED: Final = re.compile(r"[%:{}*?\[\]\\\s\x00-\x1f\x7f-\x9f]")


class Message(BaseModel):
    """One message."""

    numero: int
    texto: str
    tono: str


class Metadata(BaseModel):
    """The cost of a generation."""

    tokens_total: int | None = None
    cost_total_usd: float | None = None
    tiempo_total_ms: int | None = None
    segmentos_procesados: int | None = None
    fecha_generacion: datetime | None = None


class Generation(BaseModel):
    """The messages for one segment of a campaign."""

    campana_id: Annotated[str, Field(min_length=1)]
    segmento: Annotated[str, Field(min_length=1)]
    mensajes: Annotated[list[Message], Field(min_length=1)]
    metadata: Metadata = Metadata()


def run(mongo_uri: str, database: str, collection: str, redis_url: str) -> int:
    """Copy all documents; return their number."""
    count = 0
    with MongoClient[Any](mongo_uri, tz_aware=True) as mongo, redis.Redis.from_url(redis_url) as cache:
        order = [("updated_at", 1), ("_id", 1)]
        cursor = mongo[database][collection].find({}, _FIELDS, sort=order, batch_size=BATCH)
        while batch := list(islice(cursor, BATCH)):
            with cache.pipeline(transaction=True) as pipeline:
                for document in batch:
                    _put(pipeline, Generation.model_validate(document))
                pipeline.execute()
            count += len(batch)
    return count


def _put(pipeline: "redis.client.Pipeline", generation: Generation) -> None:
    name = f"{_component(generation.campana_id)}:{_digest(generation.segmento)}"
    messages = f"ai:campaign_messages:{name}"
    pipeline.delete(messages)
    pipeline.rpush(messages, *_members(generation))
    pipeline.expire(messages, TTL)
    meta = f"ai:generation:meta:{name}"
    pipeline.delete(meta)
    if fields := dict(_fields(generation.metadata)):
        pipeline.hset(meta, mapping=fields)
        pipeline.expire(meta, TTL)


def _members(generation: Generation) -> list[str]:
    messages = sorted(generation.mensajes, key=lambda message: message.numero)
    return [
        json.dumps(message.model_dump(), ensure_ascii=False, separators=(",", ":")) for message in messages
    ]


def _fields(metadata: Metadata) -> Iterator[tuple[Any, str]]:
    for name, value in metadata:
        if isinstance(value, datetime):
            yield name, _date(value)
        elif isinstance(value, float):
            yield name, _decimal(value)
        elif value is not None:
            yield name, str(value)


def _date(value: datetime) -> str:
    precision = "milliseconds" if value.microsecond else "seconds"
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def _decimal(value: float) -> str:
    digits = f"{Decimal(repr(value)):f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def _component(value: str) -> str:
    return _ENCODED.sub(lambda match: quote(match[0], safe=""), normalize("NFC", value))


def _digest(value: str) -> str:
    return sha256(normalize("NFC", value).encode()).hexdigest()[:32]


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"documents": run(*sys.argv[1:5])}))
