"""The proxy that later tests trust: each of its faults happens, and is counted."""

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
    """A connection to the proxy on which nothing takes longer than half a second."""
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=0.5)


def ask(connection: socket.socket, request: bytes = PING) -> bytes:
    """Send a request and wait for the beginning of the answer."""
    connection.sendall(request)
    return connection.recv(65_536)


def read_to_the_end(connection: socket.socket) -> None:
    """Read whatever still comes."""
    while connection.recv(65_536):
        pass


@pytest.mark.usefixtures("client")
def test_the_proxy_counts_connections_and_bursts(proxy: Proxy) -> None:
    """Every connection counts once; a burst counts once however many commands it holds."""
    with closing(connect(proxy)) as other:
        ask(other, PING * 100)
        ask(other)

        assert proxy.connections == 2
        assert proxy.requests == [PING, (PING * 100)[:256], PING]
        assert proxy.round_trips == 3


def test_the_proxy_forgets_its_counts(proxy: Proxy, client: socket.socket) -> None:
    """After `forget` only what follows counts."""
    proxy.forget()
    ask(client)

    assert (proxy.connections, proxy.round_trips) == (0, 1)


def test_the_proxy_passes_megabytes_unchanged(proxy: Proxy, redis_url: str) -> None:
    """More than any buffer holds arrives whole, both ways."""
    value = bytes(range(256)) * 40_000
    with redis.Redis.from_url(proxy.through(redis_url)) as connection:
        connection.set("big", value)

        assert connection.get("big") == value


def test_cut_resets_connections_and_refuses_new_ones(proxy: Proxy, client: socket.socket) -> None:
    """A connection ends with a reset, not in order; a new one is refused until `resume`."""
    assert proxy.cut() == 1
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)

    proxy.resume()
    with closing(connect(proxy)) as again:
        assert ask(again) == PONG


def test_stall_delays_and_loses_nothing(proxy: Proxy, client: socket.socket) -> None:
    """No answer comes while it is stalled, and all of them after."""
    proxy.stall()
    client.sendall(PING)
    assert eventually(lambda: proxy.held == len(PING))
    with pytest.raises(TimeoutError):
        client.recv(1)

    proxy.resume()
    assert client.recv(100) == PONG
    assert eventually(lambda: proxy.held == 0)


def test_hold_delivers_after_the_client_has_gone(proxy: Proxy, redis_url: str) -> None:
    """The one request is stuck while other connections are served, and arrives when all goes on."""
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


def test_deaf_accepts_and_never_answers(proxy: Proxy, client: socket.socket) -> None:
    """Old and new connections stay open, swallow everything, and are reset by `resume`."""
    proxy.deafen()
    with closing(connect(proxy)) as late:
        for connection in (client, late):
            with pytest.raises(TimeoutError):
                ask(connection)
    assert proxy.swallowed == 2 * len(PING)

    proxy.resume()
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_drop_in_the_middle_of_a_request(
    proxy: Proxy, client: socket.socket, redis_client: redis.Redis
) -> None:
    """The server gets exactly the bytes before the drop: the first command is done, the second is not."""
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


def test_drop_in_the_middle_of_an_answer(proxy: Proxy, client: socket.socket) -> None:
    """The command is done, but its client never hears of it; the next connection is served."""
    proxy.drop_after(3, of="answers")
    client.sendall(PING)
    with pytest.raises(ConnectionResetError):
        read_to_the_end(client)

    assert proxy.dropped == 1
    with closing(connect(proxy)) as again:
        assert ask(again) == PONG


def test_a_server_that_is_gone_resets_the_client(start_redis: StartRedis, proxy_to: ProxyTo) -> None:
    """A proxy with nobody behind it does not pretend."""
    server = start_redis()
    proxy = proxy_to(server)
    server.kill()

    with pytest.raises(ConnectionResetError), closing(connect(proxy)) as connection:
        ask(connection)


def test_a_frozen_server_does_not_freeze_the_proxy(start_redis: StartRedis, proxy_to: ProxyTo) -> None:
    """However much a client has sent to a frozen server, the proxy still obeys."""
    server = start_redis()
    proxy = proxy_to(server)
    with closing(connect(proxy)) as connection:
        server.pause()
        with pytest.raises(TimeoutError):
            connection.sendall(PING * 10_000_000)

        assert proxy.cut() == 1


def test_through_keeps_a_mongodb_driver_at_the_proxy(start_mongod: StartMongo, proxy_to: ProxyTo) -> None:
    """The address of a replica set member is not followed around the proxy; credentials stay."""
    server = start_mongod(password="geheim/1")
    proxy = proxy_to(server)

    assert proxy.through(server.uri) == f"mongodb://admin:geheim%2F1@{proxy.address}/?directConnection=true"
