"""The embedded servers are real, can be killed and restarted, and leave nothing behind."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from etl import demo as embedded
from etl.demo import watchdog
from etl.errors import EtlError
from tests.support.types import Document, StartMongo, StartRedis
from tests.support.waiting import eventually

PASSWORD = "p@ss/word"

# An owner that prints its processes and folders, and then waits to be killed.
OWNER = """
import time
from etl import demo as embedded
with embedded.servers() as servers:
    for server in servers:
        print(server.pid, server.folder, flush=True)
    time.sleep(60)
"""


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def count(uri: str) -> int:
    """The number of documents in the collection of the tests below."""
    with MongoClient[Document](uri) as client:
        return client["facts"]["known"].count_documents({})


@pytest.mark.usefixtures("mongod", "redis_server")  # they skip this test where there are no servers
def test_servers_are_removed_after_the_block() -> None:
    """With their processes and folders."""
    with embedded.servers() as servers:
        pids = [server.pid for server in servers]
        folders = [server.folder for server in servers]
        with (
            MongoClient[Document](servers.mongo.uri) as mongo,
            redis.Redis.from_url(servers.redis.url) as cache,
        ):
            mongo["facts"]["known"].insert_one({"_id": 1})
            assert cache.set("known", 1)

    assert not any(map(is_running, pids))
    assert not any(folder.exists() for folder in folders)


def test_embedded_mongodb_supports_transactions(mongo_client: MongoClient[Document]) -> None:
    """It is a replica set of one node."""
    known = mongo_client["test_embedded"]["known"]
    with mongo_client.start_session() as session:
        with session.start_transaction():
            known.insert_one({"_id": 1}, session=session)
            assert known.count_documents({}) == 0
        assert known.count_documents({}) == 1
    mongo_client.drop_database("test_embedded")


@pytest.mark.usefixtures("mongod", "redis_server")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_servers_end_with_their_owner(number: signal.Signals) -> None:
    """Also after `kill -9`; their folders are removed."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with owner:
        assert owner.stdout
        lines = [owner.stdout.readline().split() for _ in range(2)]
        owner.send_signal(number)
    owned = {int(pid): Path(folder) for pid, folder in lines}

    assert len(owned) == 2
    assert eventually(lambda: not any(map(is_running, owned)))
    assert eventually(lambda: not any(folder.exists() for folder in owned.values()))


def test_watchdog_kills_a_frozen_server_and_removes_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with subprocess.Popen(["/bin/sleep", "60"]) as server:
        watchdog.record_pid(folder, server.pid)
        server.send_signal(signal.SIGSTOP)

        watchdog.main(owner=os.getpid(), folder=folder)  # this process is no child of its own

        assert server.wait(5) == -signal.SIGKILL
    assert not folder.exists()


def test_watchdog_removes_the_folder_of_a_server_that_never_started(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()

    watchdog.main(owner=os.getpid(), folder=folder)

    assert not folder.exists()


def test_mongod_keeps_data_and_port_after_stop_and_kill(start_mongod: StartMongo) -> None:
    mongo = start_mongod()
    with MongoClient[Document](mongo.uri) as client:
        client["facts"]["known"].insert_one({"_id": 1})

    mongo.restart()
    assert count(mongo.uri) == 1
    mongo.kill()
    mongo.start()
    assert count(mongo.uri) == 1


def test_redis_keeps_its_data_with_an_append_only_file_only(start_redis: StartRedis) -> None:
    for args, kept in (((), None), (("--appendonly", "yes"), b"1")):
        server = start_redis(args=args)
        with redis.Redis.from_url(server.url) as client:
            client.set("known", 1)

        server.restart()

        with redis.Redis.from_url(server.url) as client:
            assert client.get("known") == kept


def test_paused_server_accepts_connections_but_does_not_answer(start_redis: StartRedis) -> None:
    """After `resume` it answers what it has received."""
    server = start_redis()
    server.pause()
    with socket.create_connection(("127.0.0.1", server.port), timeout=0.2) as connection:
        connection.sendall(b"PING\r\n")
        with pytest.raises(TimeoutError):
            connection.recv(10)
        server.resume()
        connection.settimeout(5)
        assert connection.recv(10) == b"+PONG\r\n"


def test_paused_server_can_be_stopped(start_redis: StartRedis) -> None:
    server = start_redis()
    server.pause()
    server.stop()

    with pytest.raises(EtlError, match=r"redis-server at 127\.0\.0\.1:[0-9]+ is not running"):
        server.stop()


def test_mongod_requires_the_password(start_mongod: StartMongo) -> None:
    """`uri` contains it."""
    mongo = start_mongod(password=PASSWORD)

    assert count(mongo.uri) == 0
    with pytest.raises(OperationFailure, match="requires authentication"):
        count(f"mongodb://{mongo.address}/")


def test_redis_requires_the_password(start_redis: StartRedis) -> None:
    """`url` contains it."""
    server = start_redis(password=PASSWORD)

    with redis.Redis.from_url(server.url) as client:
        assert client.ping()
    with (
        redis.Redis.from_url(f"redis://{server.address}") as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


@pytest.mark.usefixtures("redis_server")
def test_server_that_does_not_start_raises_its_last_line_as_error() -> None:
    with pytest.raises(EtlError, match=r"ended instead of starting: argument.* must be one of") as raised:
        embedded.RedisServer(args=("--maxmemory-policy", "none")).__enter__()

    assert "\n" not in str(raised.value)
