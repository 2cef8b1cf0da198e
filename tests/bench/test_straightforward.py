"""The straightforward script does the very work of the product."""

from datetime import UTC, datetime
from typing import Any

import redis

from bench import straightforward
from bench.servers import COLLECTION, Bench, Source
from tests.factories import campaign
from tests.support.redis_dump import held
from tests.support.types import Document, Warm

TTLS = range(10_700, 10_801)


def unusual() -> list[Document]:
    """Documents of which each has something that is easily written otherwise."""
    now = datetime(2025, 3, 1, 12, tzinfo=UTC)
    changes: list[dict[str, Any]] = [
        {"campana_id": "camp:50%{a} *"},
        {"segmento": "Jo\u0301venes"},
        {"mensajes": [{"numero": n, "texto": 'a"b\n\\ ñ', "tono": "t"} for n in (3, 1, 2)]},
        {"metadata": {"cost_total_usd": 350.0, "fecha_generacion": now}},
        {"metadata": {"cost_total_usd": 1e-7, "tokens_total": 3.0}},
        {"metadata": {}},
    ]
    return [campaign(f"u{n}", now) | change for n, change in enumerate(changes)]


def test_it_leaves_what_the_product_leaves(
    bench: Bench, source: Source, redis_client: redis.Redis, redis_url: str, warm: Warm
) -> None:
    """The same keys, types and values, and the same TTL of each, in its own Redis."""
    bench.collection(source).insert_many(unusual())
    warm(bench.server.url)

    count = straightforward.run(bench.mongod.uri, source.database, COLLECTION, redis_url)

    assert count == source.documents + len(unusual())
    assert held(redis_client) == held(bench.redis)
    assert lives(redis_client) == lives(bench.redis) == {True}


def lives(client: redis.Redis) -> set[bool]:
    """Whether the keys of the contract live as long as they should."""
    keys = list(client.scan_iter("ai:*"))
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.ttl(key)
    return {ttl in TTLS for ttl in pipeline.execute()}
