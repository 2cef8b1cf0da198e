"""A Redis that closes idle connections, like managed servers and load balancers."""

from pymongo.collection import Collection

from tests.support.command import Etl, StartEtl
from tests.support.daemons import ended, every, provider, url_of
from tests.support.http import get
from tests.support.types import Document, StartRedis
from tests.support.waiting import eventually

CLOSING = ("--timeout", "1", "--hz", "100")


def test_backfill_releases_its_lease_after_its_connection_was_closed(
    start_redis: StartRedis, collection: Collection[Document], etl: Etl
) -> None:
    """It waits longer between two pages than Redis keeps idle connections. The next backfill can start."""
    collection.insert_many([provider(number) for number in range(6)])
    small = '[{"name": "promptContent", "page_size": 2}]'
    variables = {"ETL_REDIS__URL": start_redis(args=CLOSING).url, "ETL_COLLECTIONS": small}
    first = etl("backfill", "promptContent", "--rate", "1", **variables)
    assert (first.code, "error" in first.err) == (0, False)
    second = etl("backfill", "promptContent", **variables)
    assert (second.code, second.problems) == (0, "")


def test_daemon_reconnects_without_retries_or_warnings(
    start_redis: StartRedis, collection: Collection[Document], start_etl: StartEtl
) -> None:
    """Every connection is closed between two cycles."""
    collection.insert_one(provider(0))
    settings = every(3) | {"ETL_REDIS__URL": start_redis(args=CLOSING).url}
    daemon = start_etl("run", **settings)

    def cycles() -> int:
        text = get(f"{url_of(settings)}/metrics").text
        [line] = [x for x in text.splitlines() if x.startswith("etl_cycles_total") and 'status="ok"' in x]
        return int(float(line.rpartition(" ")[2]))

    assert eventually(lambda: is_up(url_of(settings)))
    assert eventually(lambda: cycles() >= 3)
    lines = ended(daemon)
    assert [line for line in lines if line["action"] in {"trouble", "recovered", "retry"}] == []


def is_up(url: str) -> bool:
    """Whether the daemon answers."""
    try:
        return get(f"{url}/healthz").code == 200
    except OSError:
        return False
