"""Pages written as a whole, over a fake Redis and a real one: just what document by document would write."""

from collections.abc import Callable, Sequence
from typing import Any

import bson
import pytest
import redis
from bson.datetime_ms import DatetimeMS

from etl.cache.client import Wire
from etl.cache.keys import companions
from etl.model.outcome import Outcome
from etl.model.report import Report
from etl.model.state import Reached, State
from etl.sync.apply import Applier, Treatment
from etl.sync.planner import Clocks, Scan
from schemas.position import FIRST, LAST
from tests.support.twins import NAME, SourceTwin, assemble, fake_documents, take_lease

Page = Sequence[Outcome]
REACHED = Reached(Scan("backfill", Clocks(5_000, 5_000), FIRST, LAST), None, 0)
CAMPAIGN, SEGMENT = "c", "Costa Rica"


def generation(number: int, **fields: Any) -> dict[str, Any]:
    """A document with messages and their metadata, dated by its number."""
    return {
        "_id": number,
        "campana_id": CAMPAIGN,
        "segmento": f"{SEGMENT} {number}",
        "mensajes": [{"numero": 1, "texto": f"¡Hola {number}!", "tono": "casual"}],
        "metadata": {"tokens_total": number},
        "updated_at": DatetimeMS(1_000 + number),
        **fields,
    }


def provider(number: int, name: str) -> dict[str, Any]:
    """A document that fills one hash."""
    fields = {"tipo": "integracion_api", "provider_name": name, "status": f"of {number}"}
    return {"_id": number, **fields, "updated_at": DatetimeMS(1_000 + number)}


PAGES = {
    "plain": [generation(n) for n in range(3)],
    "without metadata": [generation(1, metadata=None), generation(2)],
    "a tombstone": [generation(1), generation(2, eliminado=True), generation(3, estado="archivado")],
    "a bad one": [generation(1), generation(2, mensajes=[]), provider(3, "a")],
    "only bad ones": [generation(1, mensajes=[])],
    "two claim one key": [provider(1, "a"), provider(2, "a")],
    "a request": [generation(1), generation(2, estado="pendiente")],
    "no date": [generation(1, updated_at=None), generation(2)],
}
BEFORE = {
    "nothing": [],
    "the same": [generation(1), provider(3, "a")],
    "older ones": [provider(0, "a"), generation(9, segmento=f"{SEGMENT} 2", updated_at=DatetimeMS(5))],
    "a newer one": [provider(50, "a"), generation(60, segmento=f"{SEGMENT} 1")],
    "one that moves": [generation(1, segmento="before", updated_at=DatetimeMS(5))],
}


@pytest.fixture
def apply(
    connect: Callable[[], Wire], client: redis.Redis
) -> Callable[[list[dict[str, Any]], Callable[[Page], Page]], Report]:
    """Apply documents, as their transform gives them or otherwise."""

    def run(documents: list[dict[str, Any]], given: Callable[[Page], Page]) -> Report:
        collection = fake_documents()
        if documents:
            collection.insert_many(documents)
        stages = assemble(SourceTwin(collection), connect())
        report = Report(NAME, mode="backfill")
        applier = Applier(stages, take_lease(client), State(), report, lambda: REACHED)
        page = stages.transform([bson.encode(document) for document in documents])
        applier.apply(given(page), Treatment(read_ahead=True))
        return report

    return run


def everything(client: redis.Redis) -> list[str]:
    """The names of all keys."""
    keys: Any = client.keys()
    return [*keys]


def contents(client: redis.Redis) -> dict[str, Any]:
    """All that Redis holds, but for what names a lease or counts transactions."""
    own = companions(NAME)
    keys = sorted({*everything(client)} - {own.lease, own.fence, own.turnstile, own.checkpoint})
    read: dict[str, Callable[[str], Any]] = {
        "hash": client.hgetall,
        "list": lambda key: client.lrange(key, 0, -1),
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        "set": client.smembers,
        "string": client.get,
    }
    return {key: (read[str(client.type(key))](key), client.ttl(key) > 0) for key in keys}


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_a_page_is_written_as_its_documents_would_be(
    client: redis.Redis, apply: Any, page: list[dict[str, Any]], before: list[dict[str, Any]]
) -> None:
    """Every key, its expiry, whose it is, and what is counted: on an empty cache and on a full one."""
    written = []
    for given in (lambda page: page, list):
        for key in everything(client):
            client.delete(key)
        apply(before, list)
        report = apply(page, given)
        written.append((contents(client), report))

    assert written[0] == written[1]
    assert written[0][0], "nothing was written"


def test_a_held_lock_puts_off_a_page(client: redis.Redis, apply: Any) -> None:
    """Only the documents of that campaign; the others are written."""
    client.set(f"lock:content_generation:{CAMPAIGN}", "17")

    report = apply([generation(1), provider(2, "a")], lambda page: page)

    assert report.records_processed == 1
    assert client.exists("config:api:a")
    assert not [*client.scan_iter("ai:*")]
