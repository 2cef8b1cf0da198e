"""The straightforward script does the same work as the product."""

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
    """Documents with values that are easily written differently."""
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


def test_script_writes_the_same_keys_as_the_product(
    bench: Bench, source: Source, redis_client: redis.Redis, redis_url: str, warm: Warm
) -> None:
    """With the same types, values and TTLs, in another Redis."""
    bench.collection(source).insert_many(unusual())
    warm(bench.server.url)

    count = straightforward.run(bench.mongod.uri, source.database, COLLECTION, redis_url)

    assert count == source.documents + len(unusual())
    assert held(redis_client) == held(bench.redis)
    assert ttls_are_right(redis_client) == ttls_are_right(bench.redis) == {True}


def ttls_are_right(client: redis.Redis) -> set[bool]:
    """Whether the keys of the contract have the right TTL."""
    keys = list(client.scan_iter("ai:*"))
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.ttl(key)
    return {ttl in TTLS for ttl in pipeline.execute()}
