"""What the product sends is recorded, and sent again by the ceiling."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pymongo.collection import Collection

from bench.ceiling import Refused, replay
from bench.recorder import Recorder, Recording, keep_data, sent_in, transactions, without_transactions
from bench.servers import Bench, Wrong
from etl.demo import RedisServer
from etl.demo.process import HOST
from tests.bench.conftest import COUNT, Warm
from tests.support.truth import held
from tests.support.types import Document


@pytest.fixture
def recording(filled: Collection[Document], warm: Warm, own_redis: RedisServer, tmp_path: Path) -> Recording:
    """The data commands of one run of the product over the collection."""
    assert filled.estimated_document_count() == COUNT
    with Recorder(own_redis.port, tmp_path) as recorder:
        warm(recorder.url)
    return keep_data(recorder.files, tmp_path / "data")


def test_a_replay_leaves_what_the_product_left(bench: Bench, recording: Recording, tmp_path: Path) -> None:
    """Every key, with its type, value and a TTL; with the transactions around the commands and without."""
    left = held(bench.redis)
    assert len(left) == 2 * COUNT

    for again in (recording, without_transactions(recording, tmp_path / "bare")):
        bench.flush()
        answer = replay(again, HOST, bench.servers.redis.port)

        assert answer["replies"] == again.replies >= 4 * COUNT  # to fill both keys, to let them expire
        assert held(bench.redis) == left
        assert bench.redis.dbsize() == 2 * COUNT  # and nothing of the product's own
        bench.check(COUNT)


def test_the_recorded_bytes_are_those_that_were_sent(recording: Recording, tmp_path: Path) -> None:
    """What is kept is found in what the product sent, to the byte."""
    sent = b"".join(path.read_bytes() for path in sorted(tmp_path.glob("*.resp")))
    kept = recording.path.read_bytes()

    # The product sends commands of its own before and after those in each transaction.
    blocks = [block.removesuffix(b"*1\r\n$4\r\nEXEC\r\n") for block in kept.split(b"*1\r\n$5\r\nMULTI\r\n")]
    filled = [block for block in blocks if block]
    assert len(filled) == sum(command == [b"MULTI"] for command in sent_in(recording.path)) > 1
    assert all(block in sent for block in filled)


def test_a_refused_command_ends_the_replay(bench: Bench, recording: Recording, tmp_path: Path) -> None:
    """An error among the replies, also one inside an EXEC, or a reply too few is no measurement."""
    bench.redis.config_set("maxmemory", 1)
    with pytest.raises(Refused, match="OOM"):
        replay(recording, HOST, bench.servers.redis.port)
    bench.redis.config_set("maxmemory", 0)

    with pytest.raises(Refused, match=r"(\d+) replies to \d+ commands; None"):
        replay(recording._replace(replies=recording.replies + 1), HOST, bench.servers.redis.port)

    inside = tmp_path / "inside"
    inside.write_bytes(b"MULTI\r\nSET a 1\r\nRPUSH a 1\r\nEXEC\r\n")
    with pytest.raises(Refused, match="WRONGTYPE"):
        replay(Recording(inside, 4), HOST, bench.servers.redis.port)


def test_only_data_is_kept() -> None:
    """Of transactions the commands on keys of the contract: no scripts, no own keys, nothing discarded."""
    rpush = [b"RPUSH", b"ai:campaign_messages:c:s", b"{}"]
    commands = [
        [b"WATCH", b"{etl:last_sync:c}:fence"],
        [b"MULTI"],
        rpush,
        [b"HSET", b"{etl:last_sync:c}:checkpoint", b"a", b"1"],
        [b"HSET", b"etl:last_sync:c", b"a", b"1"],
        [b"EVALSHA", b"ab", b"1", b"queue:ai_generation:alta"],
        [b"EXEC"],
        [b"DEL", b"ai:campaign_messages:c:s"],
        [b"MULTI"],
        rpush,
        [b"DISCARD"],
        [b"MULTI"],
        [b"EVALSHA", b"ab", b"0"],
        [b"EXEC"],
    ]

    assert list(transactions(commands)) == [[[b"MULTI"], rpush, [b"EXEC"]]]


def test_the_check_finds_what_is_missing_wrong_or_would_live_for_ever(
    bench: Bench, filled: Collection[Document], warm: Warm
) -> None:
    """A contender that left out a key, a message or a TTL is found out."""

    def spoil(spoilt: Callable[[str], object], prefix: str) -> None:
        bench.flush()
        warm(bench.servers.redis.url)
        bench.check(filled.estimated_document_count())
        for key in list(bench.redis.scan_iter(f"{prefix}*")):
            spoilt(key)
        with pytest.raises(Wrong):
            bench.check(COUNT)

    spoil(bench.redis.delete, "ai:generation:meta:camp_2025_tech_1")
    spoil(bench.redis.rpop, "ai:campaign_messages:")
    spoil(bench.redis.persist, "ai:generation:meta:")
