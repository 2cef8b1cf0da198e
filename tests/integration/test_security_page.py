"""The Redis users of SECURITY.md have all the permissions that the ETL needs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from pymongo.collection import Collection
from redis.cluster import RedisCluster

from etl.app import BackfillOrder
from etl.demo import RedisServer
from tests.factories import api, campaign
from tests.support.cluster import start_cluster
from tests.support.pipeline import NAME, Clock, OpenApp, sync
from tests.support.security import as_user, create_user
from tests.support.types import Document


@contextmanager
def single_server() -> Iterator[tuple[str, Any]]:
    """The URL of a server, and a client of its administrator."""
    with RedisServer() as server, redis.Redis.from_url(server.url) as client:
        create_user(client, "single server")
        yield server.url, client


@contextmanager
def cluster() -> Iterator[tuple[str, Any]]:
    """The same for a cluster of three primaries."""
    with start_cluster() as started:
        for node in started.nodes:
            with redis.Redis.from_url(node.url) as client:
                create_user(client, "cluster")
        yield started.url, started.client()


@pytest.mark.parametrize("start", [single_server, cluster])
def test_documented_redis_user_may_run_every_command(
    open_app: OpenApp, collection: Collection[Document], clock: Clock, start: Callable[[], Any]
) -> None:
    """It may not write other keys."""
    collection.insert_many(
        [
            api("a", clock.ago(60)),
            campaign("c", clock.ago(60)),
            campaign("d", clock.ago(60), estado="pendiente"),
            {"tipo": "nada", "updated_at": clock.ago(60)},
        ]
    )
    with start() as (address, admin):
        url = as_user(address)
        with open_app(redis=url) as app:
            report = sync(app)
            assert (report.records_processed, report.dead_lettered) == (3, 1)
            assert app.backfill(NAME, BackfillOrder(), lambda _: None).status == "ok"
            assert app.refresh("config:api").written == 1
            admin.delete("config:api:a")
            assert app.verify(NAME, repair=True).repaired == 1
            assert app.reconcile(NAME)
            assert app.trace(NAME, [str(1)]).outcome == "gone"
            assert app.status()[0].dead_letters == 1
            assert app.show("config:api:a")
            findings = [one for one in app.doctor() if one.subject == "Redis" and one.level == "finding"]
            assert [one.check for one in findings] == []
            app.delete_keys(app.own_keys(NAME, queues=True))
        user: Any = RedisCluster if start is cluster else redis.Redis
        with user.from_url(url) as client, pytest.raises(redis.exceptions.NoPermissionError):
            client.set("other", "x")


@pytest.mark.parametrize("missing", ["-hset", "-expire", "-script", "resetkeys ~mcp:* ~etl:* ~{*"])
def test_missing_permission_is_a_configuration_error(
    open_app: OpenApp, collection: Collection[Document], clock: Clock, missing: str
) -> None:
    """Inside and outside of scripts. A retry would not help."""
    collection.insert_one(api("a", clock.ago(60)))
    with single_server() as (address, admin):
        admin.execute_command("ACL", "SETUSER", "etl", *missing.split())
        with open_app(redis=as_user(address)) as app:
            [report] = app.sync()
    assert (report.status, report.exit_code) == ("failed", 2), report.error
    assert "check user, password and ACL in redis.url" in str(report.error)
    assert "\n" not in str(report.error)
