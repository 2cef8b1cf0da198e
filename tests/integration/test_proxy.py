"""The proxy of other tests: each of its faults happens, and is counted."""

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
import redis

from etl.demo import RedisServer
from tests.support.proxy import Proxy
from tests.support.types import ProxyTo, StartMongo, StartRedis
from tests.support.waiting import eventually

PING, PONG = b"PING\r\n", b"+PONG\r\n"


@pytest.fixture
def proxy(proxy_to: ProxyTo, redis_server: RedisServer) -> Proxy:
    """A proxy in front of the shared Redis."""
    return proxy_to(redis_server)


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    """A connection through the proxy that has exchanged one ping."""
    with closing(connect(proxy)) as connection:
        assert ask(connection) == PONG
        yield connection


def connect(proxy: Proxy) -> socket.socket:
    """A connection to the proxy with a timeout of half a second."""
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=0.5)


def ask(connection: socket.socket, request: bytes = PING) -> bytes:
    """Send a request and return the beginning of the answer."""
    connection.sendall(request)
    return connection.recv(65_536)


def read_to_the_end(connection: socket.socket) -> None:
    """Read until the connection ends."""
    while connection.recv(65_536):
        pass


@pytest.mark.usefixtures("client")
def test_proxy_counts_connections_and_bursts(proxy: Proxy) -> None:
    """A burst of many commands counts once."""
    with closing(connect(proxy)) as other:
        ask(other, PING * 100)
        ask(other)

        assert proxy.connections == 2
        assert proxy.requests == [PING, (PING * 100)[:256], PING]
        assert proxy.round_trips == 3


def test_forget_resets_the_counts(proxy: Proxy, client: socket.socket) -> None:
    proxy.forget()
    ask(client)

    assert (proxy.connections, proxy.round_trips) == (0, 1)


def test_proxy_forwards_megabytes_unchanged(proxy: Proxy, redis_url: str) -> None:
    """More than fits any buffer, in both directions."""
    value = bytes(range(256)) * 40_000
    with redis.Redis.from_url(proxy.through(redis_url)) as connection:
        connection.set("big", value)

        assert connection.get("big") == value


def test_cut_resets_connections_and_refuses_new_ones_until_resume(
    proxy: Proxy, client: socket.socket
) -> None:
    assert proxy.cut() == 1
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)

    proxy.resume()
    with closing(connect(proxy)) as again:
        assert ask(again) == PONG


def test_stall_delays_without_loss(proxy: Proxy, client: socket.socket) -> None:
    """Answers arrive after `resume`."""
    proxy.stall()
    client.sendall(PING)
    assert eventually(lambda: proxy.held == len(PING))
    with pytest.raises(TimeoutError):
        client.recv(1)

    proxy.resume()
    assert client.recv(100) == PONG
    assert eventually(lambda: proxy.held == 0)


def test_held_request_is_delivered_after_its_client_disconnected(proxy: Proxy, redis_url: str) -> None:
    """Other connections are served meanwhile."""
    with redis.Redis.from_url(proxy.through(redis_url), decode_responses=True) as client:
        late = client.connection_pool.get_connection()
        proxy.hold_at(b"late")
        late.send_command("SET", "key", "late")
        assert eventually(lambda: proxy.is_holding)
        late.disconnect()
        client.connection_pool.release(late)

        client.set("key", "soon")
        assert client.get("key") == "soon"
        proxy.resume()

        assert eventually(lambda: client.get("key") == "late")


def test_deaf_proxy_accepts_and_never_answers(proxy: Proxy, client: socket.socket) -> None:
    """Old and new connections stay open until `resume` resets them."""
    proxy.deafen()
    with closing(connect(proxy)) as late:
        for connection in (client, late):
            with pytest.raises(TimeoutError):
                ask(connection)
    assert proxy.swallowed == 2 * len(PING)

    proxy.resume()
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_drop_in_a_request_forwards_the_bytes_before_it(
    proxy: Proxy, client: socket.socket, redis_client: redis.Redis
) -> None:
    """The first command is executed, the second is not."""
    database = redis_client.get_connection_kwargs()["db"]
    ask(client, b"SELECT %d\r\n" % database)
    first, second = b"SET one 1\r\n", b"SET two 2\r\n"

    proxy.drop_after(len(first) + 3, of="requests")
    client.sendall(first + second)

    with pytest.raises(ConnectionResetError):
        read_to_the_end(client)
    assert proxy.dropped == 1
    assert eventually(lambda: redis_client.get("one") == "1")
    assert redis_client.get("two") is None


def test_drop_in_an_answer_resets_the_connection(proxy: Proxy, client: socket.socket) -> None:
    """The command was executed. The next connection is served."""
    proxy.drop_after(3, of="answers")
    client.sendall(PING)
    with pytest.raises(ConnectionResetError):
        read_to_the_end(client)

    assert proxy.dropped == 1
    with closing(connect(proxy)) as again:
        assert ask(again) == PONG


def test_proxy_resets_the_client_if_the_server_is_gone(start_redis: StartRedis, proxy_to: ProxyTo) -> None:
    server = start_redis()
    proxy = proxy_to(server)
    server.kill()

    with pytest.raises(ConnectionResetError), closing(connect(proxy)) as connection:
        ask(connection)


def test_frozen_server_does_not_freeze_the_proxy(start_redis: StartRedis, proxy_to: ProxyTo) -> None:
    """Although a client has sent much data."""
    server = start_redis()
    proxy = proxy_to(server)
    with closing(connect(proxy)) as connection:
        server.pause()
        with pytest.raises(TimeoutError):
            connection.sendall(PING * 10_000_000)

        assert proxy.cut() == 1


def test_through_gives_a_direct_connection_to_the_proxy(start_mongod: StartMongo, proxy_to: ProxyTo) -> None:
    """So that the driver does not connect to the member itself; the credentials are kept."""
    server = start_mongod(password="geheim/1")
    proxy = proxy_to(server)

    assert proxy.through(server.uri) == f"mongodb://admin:geheim%2F1@{proxy.address}/?directConnection=true"
