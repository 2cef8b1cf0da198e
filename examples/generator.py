"""A generator: takes requests from the queues, and writes the messages of each into MongoDB.

    python examples/generator.py redis://localhost:6379/0 mongodb://localhost:27017 campaigns

The ETL pushes a request for each document with `estado: pendiente`. While this program holds the lock of a campaign,
the ETL defers the documents of that campaign; the next cycle after it writes the messages into the cache.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pymongo
import redis
from pymongo.collection import Collection

from etl import GenerationLock, LockHeld
from schemas.documents import FAMILIES

Message = Mapping[str, Any]
Write = Callable[[str, str], Sequence[Message]]
"""Writes the messages for a campaign and a segment."""

QUEUES = [FAMILIES["queue:ai_generation"].key(priority=priority) for priority in ("alta", "media", "baja")]
TAKEN = f"generator:{socket.gethostname()}:taken"
"""The requests that this host works on: after a crash they are put back."""


def take(client: redis.Redis) -> tuple[str, str] | None:
    """The oldest request of the most urgent queue, and that queue; None if all queues are empty."""
    for queue in QUEUES:
        if (request := client.lmove(queue, TAKEN, "LEFT", "RIGHT")) is not None:
            return queue, str(request)
    return None


def work_once(client: redis.Redis, collection: Collection[dict[str, Any]], write: Write) -> bool:
    """Work on one request; returns False if there is none, or its campaign is locked by another generator."""
    taken = take(client)
    if taken is None:
        return False
    queue, request = taken
    campana_id, segmento = (json.loads(request)[field] for field in ("campana_id", "segmento"))
    try:
        with GenerationLock(client, campana_id) as lock:
            messages = write(campana_id, segmento)
            lock.extend()  # raises LockLost if the lock has expired: another generator may be at work
            collection.update_one(
                {"campana_id": campana_id, "segmento": segmento},
                {
                    "$set": {"tipo": "generacion", "estado": "generado", "mensajes": messages},
                    "$currentDate": {"updated_at": True},
                },
                upsert=True,
            )
    except LockHeld:
        client.rpush(queue, request)
        client.lrem(TAKEN, 1, request)
        return False
    client.lrem(TAKEN, 1, request)
    return True


def put_back(client: redis.Redis) -> None:
    """Put requests that a crash has left behind to the front of the most urgent queue."""
    while client.lmove(TAKEN, QUEUES[0], "RIGHT", "LEFT") is not None:
        pass


def write_messages(campana_id: str, segmento: str) -> Sequence[Message]:
    """Replace this by a call of your model."""
    text = f"Mensaje de {campana_id} para {segmento}"
    return [{"numero": 1, "texto": text, "tono": os.environ.get("TONO", "casual")}]


def main(redis_url: str, mongo_uri: str, database: str) -> None:
    """Work until Ctrl-C."""
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    collection = pymongo.MongoClient[dict[str, Any]](mongo_uri)[database]["promptContent"]
    put_back(client)
    while True:
        if not work_once(client, collection, write_messages):
            time.sleep(1)


if __name__ == "__main__":
    match sys.argv[1:]:
        case [redis_url, mongo_uri, database]:
            with suppress(KeyboardInterrupt):
                main(redis_url, mongo_uri, database)
        case _:
            sys.exit("usage: python examples/generator.py REDIS_URL MONGO_URI DATABASE")
