"""SECURITY.md holds: the Redis user that it shows is enough."""

import re
import shlex
from pathlib import Path

import pytest
import redis
from pymongo.collection import Collection

from etl.app import App, BackfillOrder
from etl.demo import MongoServer
from tests.support.pipeline import NAME, Clock, api, campaign, settings_for, sync
from tests.support.types import Document, StartRedis

PAGE = (Path(__file__).parents[2] / "SECURITY.md").read_text("utf-8")


def test_the_redis_user_of_the_page_may_do_all_that_is_needed(
    mongod: MongoServer, collection: Collection[Document], start_redis: StartRedis, clock: Clock
) -> None:
    """Cycle, backfill, refresh, verification with repair, trace, status, doctor; and nothing beyond these keys."""
    server = start_redis()
    [command] = re.findall(r"^ +(ACL SETUSER .*)$", PAGE, re.MULTILINE)
    with redis.Redis.from_url(server.url) as client:
        client.execute_command(*shlex.split(command.replace("PASSWORD", "secret")))
    url = server.url.replace("redis://", "redis://etl:secret@")
    collection.insert_many(
        [
            api("a", clock.ago(60)),
            campaign("c", clock.ago(60)),
            campaign("d", clock.ago(60), estado="pendiente"),
            {"tipo": "nada", "updated_at": clock.ago(60)},
        ]
    )
    with App(settings_for(mongod.uri, collection.database.name, url)) as app:
        report = sync(app)
        assert (report.records_processed, report.dead_lettered) == (3, 1)
        assert app.backfill(NAME, BackfillOrder(), lambda _: None).status == "ok"
        assert app.refresh("config:api").written == 1
        with redis.Redis.from_url(server.url) as client:
            client.delete("config:api:a")
        assert app.verify(NAME, repair=True).repaired == 1
        assert app.reconcile(NAME)
        assert app.trace(NAME, [str(1)]).outcome == "gone"
        assert app.status()[0].dead_letters == 1
        assert [one.check for one in app.doctor() if one.subject == "Redis" and one.level == "finding"] == []
    with redis.Redis.from_url(url) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.set("other", "x")
