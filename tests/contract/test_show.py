"""One key as a person asks for it, over a fake Redis and a real one."""

from typing import Any

import pytest

from etl.cache.client import Wire
from etl.cache.inspector import Inspector, Shown
from tests.support.twins import Insistent


@pytest.mark.parametrize(
    ("fill", "shown"),
    [
        (("HSET", "k", "a", "1"), Shown("k", "hash", None, {"a": "1"})),
        (("RPUSH", "k", "a", "b"), Shown("k", "list", None, ["a", "b"])),
        (("SET", "k", "a"), Shown("k", "string", None, "a")),
        (("SADD", "k", "a"), Shown("k", "set", None, ["a"])),
        (("ZADD", "k", 1, "a"), Shown("k", "zset", None, ["a"])),
    ],
)
def test_a_key_is_shown_as_what_it_is(wire: Wire, fill: tuple[Any, ...], shown: Shown) -> None:
    """Whatever its type; its life is told when it has one; a key that is not there is no error."""
    assert Inspector(wire, Insistent()).show("k") is None
    wire.exchange([fill])
    assert Inspector(wire, Insistent()).show("k") == shown
    wire.exchange([("PEXPIRE", "k", 60_000)])
    told = Inspector(wire, Insistent()).show("k")
    assert told is not None
    assert told.ttl_ms is not None
    assert 50_000 < told.ttl_ms <= 60_000
