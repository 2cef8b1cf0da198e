"""`etl trace` as a person types it."""

from datetime import UTC, datetime

import pytest
import redis
from pymongo.collection import Collection

from tests.acceptance.conftest import Etl
from tests.support.pipeline import api
from tests.support.types import Document

NAME = "promptContent"


def test_everything_that_is_known_is_told(
    etl: Etl, typed: Etl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """The keys with their TTL and what is wrong, the dead letter with its fields; the last line says why."""
    now = datetime.now(UTC)
    collection.insert_many([api("p", now, _id="d"), api("q", now, _id="e", status=5)])
    assert typed("sync").code == 0
    redis_client.hset("config:api:p", "more", "1")
    told = etl("trace", NAME, "d")
    assert (told.code, told.err) == (0, "")
    assert "  in MongoDB    yes\n" in told.out
    assert "  fills         config:api:p: hash, " in told.out
    assert ' s left; different, field "more" is too many: "1"\n' in told.out
    assert "  watermark     has passed it\n" in told.out
    assert told.out.splitlines()[-1].startswith("overwritten: it was applied, and someone else ")
    answer = etl("trace", NAME, "e", "--json").json
    assert (answer["outcome"], answer["dead_letter"]["attempts"]) == ("invalid", 1)
    assert answer["errors"] == [{"field": "status", "problem": "should be text"}]


@pytest.mark.parametrize("words", [("trace", "nowhere", "d"), ("trace", NAME)])
def test_a_wrong_usage_is_refused(typed: Etl, words: tuple[str, ...]) -> None:
    """In one line."""
    result = typed(*words)
    assert (result.code, result.err.count("\n")) == (2, 1)
