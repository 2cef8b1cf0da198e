"""Bare insertion, and the check of the content of Redis."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.documents import SHARED
from bench.insertion import Refused, pack, send
from bench.servers import Bench, Source, Wrong
from etl.demo.process import HOST
from tests.support.redis_dump import held
from tests.support.types import Warm

COUNT = 300


def insert(bench: Bench, source: Source, folder: Path) -> None:
    """Insert into an empty Redis."""
    bench.flush()
    send(pack(source, folder / "commands"), HOST, bench.server.port)


def test_insertion_writes_the_same_keys_as_the_product(
    bench: Bench, source: Source, warm: Warm, tmp_path: Path
) -> None:
    """With the same types and values, a TTL, and no registers."""
    warm(bench.server.url)
    product_keys = held(bench.redis)

    insert(bench, source, tmp_path)

    assert held(bench.redis) == product_keys
    assert bench.redis.dbsize() == len(product_keys) == 2 * source.documents
    bench.check(source)


def test_error_reply_or_missing_reply_is_no_measurement(bench: Bench, tmp_path: Path) -> None:
    packed = pack(Source("none", COUNT), tmp_path / "commands")

    bench.redis.config_set("maxmemory", 1)
    with pytest.raises(Refused, match="OOM"):
        send(packed, HOST, bench.server.port)
    bench.redis.config_set("maxmemory", 0)

    with pytest.raises(Refused, match=r"1800 replies to 1801 commands; None"):
        send(packed._replace(commands=packed.commands + 1), HOST, bench.server.port)


@pytest.mark.parametrize(
    ("damage", "pattern"),
    [
        (lambda client, key: client.delete(key), "ai:generation:meta:*_1:*"),
        (lambda client, key: client.rpop(key), "ai:campaign_messages:*"),
        (lambda client, key: client.persist(key), "ai:generation:meta:*"),
    ],
    ids=["missing", "wrong", "persistent"],
)
def test_check_fails_for_a_missing_wrong_or_persistent_key(
    bench: Bench, tmp_path: Path, damage: Callable[..., object], pattern: str
) -> None:
    """A contender must write every key, message and TTL."""
    source = Source("none", COUNT)
    insert(bench, source, tmp_path)
    bench.check(source)
    for key in bench.redis.scan_iter(pattern):
        damage(bench.redis, key)

    with pytest.raises(Wrong):
        bench.check(source)


def test_check_expects_the_newest_document_of_a_key(bench: Bench, tmp_path: Path) -> None:
    """The content of an older document is an error."""
    insert(bench, Source("none", COUNT, SHARED), tmp_path)

    bench.check(Source("none", COUNT, SHARED))
    with pytest.raises(Wrong, match="holds"):
        bench.check(Source("none", COUNT + 100, SHARED))
