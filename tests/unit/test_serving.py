"""The endpoints over real HTTP, with a fake status."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict
from http.client import HTTPConnection

import pytest
from prometheus_client.parser import text_string_to_metric_families

from etl.demo.process import HOST
from etl.errors import ConfigurationError
from etl.monitoring import server
from etl.monitoring.health import HealthSnapshot, take_snapshot
from etl.monitoring.server import Serving
from tests.support.http import get
from tests.support.statuses import FakeHealthSource, endpoints, status
from tests.support.waiting import eventually

Serve = Callable[..., Serving]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve the snapshots of `new` on a free port until the test ends."""
    with ExitStack() as stack:

        def start(new: Callable[[], HealthSnapshot], host: str = HOST) -> Serving:
            serving = Serving(endpoints(new).app(), host, 0)
            stack.callback(serving.stop)
            serving.start()
            return serving

        yield start


def test_healthy_daemon_is_live_and_ready(serve: Serve) -> None:
    url = serve(lambda: take_snapshot(FakeHealthSource(status()))).url
    assert (get(f"{url}/healthz").code, get(f"{url}/healthz").text) == (200, "ok\n")
    ready = get(f"{url}/readyz")
    assert (ready.code, ready.json) == (200, {"ready": True, "problems": []})
    assert get(f"{url}/status").json["collections"] == [asdict(status())]
    metrics = get(f"{url}/metrics")
    assert (metrics.code, metrics.kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert "etl_seconds_since_success" in {f.name for f in text_string_to_metric_families(metrics.text)}
    assert get(f"{url}/metrics", accept="application/openmetrics-text").text.endswith("# EOF\n")
    assert get(f"{url}/nothing").code == 404


def test_daemon_without_redis_is_live_but_not_ready(serve: Serve) -> None:
    """It has no status, but metrics."""
    snapshots: list[HealthSnapshot] = []

    def new() -> HealthSnapshot:
        snapshots.append(take_snapshot(FakeHealthSource(away={"redis": "Redis does not answer"})))
        return snapshots[-1]

    url = serve(new).url
    assert get(f"{url}/healthz").code == 200
    ready = get(f"{url}/readyz")
    assert (ready.code, ready.json["problems"]) == (503, ["Redis does not answer"])
    answer = get(f"{url}/status")
    assert (answer.code, answer.json["error"]) == (503, "Redis does not answer")
    assert answer.json["away"] == {"redis": "Redis does not answer"}
    metrics = get(f"{url}/metrics")
    assert metrics.code == 200
    assert 'etl_server_up{server="redis"} 0.0' in metrics.text
    assert len(snapshots) == 1, "a second has not passed"


def test_liveness_answers_while_readiness_waits(serve: Serve) -> None:
    looking, go_on = threading.Event(), threading.Event()

    def stuck() -> HealthSnapshot:
        looking.set()
        go_on.wait(10)
        return HealthSnapshot()

    url = serve(stuck).url
    clients = [threading.Thread(target=get, args=(f"{url}/metrics",)) for _ in range(10)]
    for client in clients:
        client.start()
    assert looking.wait(5)
    began = time.monotonic()
    assert get(f"{url}/healthz").code == 200
    assert time.monotonic() - began < 2
    go_on.set()
    for client in clients:
        client.join()


def test_text_that_is_not_utf8_is_served(serve: Serve) -> None:
    """An `_id` may contain it."""
    url = serve(lambda: HealthSnapshot([status(last_id="\udcff")])).url
    assert json.loads(get(f"{url}/status").text)["collections"][0]["last_id"] == "\udcff"


def test_port_in_use_is_a_one_line_error() -> None:
    """With address, reason and remedy."""
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError) as refusal:
            Serving(endpoints(HealthSnapshot).app(), HOST, port)
    assert str(refusal.value) == (
        f"cannot listen on {HOST}:{port}: Address already in use (choose another http.host or http.port;"
        " port 0 takes a free one)"
    )


def test_unknown_host_is_a_one_line_error() -> None:
    """An unknown name, or an address of another machine."""
    for host in ("no-such-host.invalid", "192.0.2.1"):
        with pytest.raises(
            ConfigurationError, match=rf"^cannot listen on {host}:0: [A-Z][^\n]+\(choose another"
        ):
            Serving(endpoints(HealthSnapshot).app(), host, 0)


def test_server_listens_on_the_configured_address(serve: Serve) -> None:
    assert serve(HealthSnapshot).url.startswith(f"http://{HOST}:")
    assert get(f"{serve(HealthSnapshot, 'localhost').url}/healthz").code == 200


def test_ipv6_address_is_in_brackets(serve: Serve) -> None:
    """If the machine has IPv6."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return
    url = serve(HealthSnapshot, "::1").url
    assert url.startswith("http://[::1]:")
    assert get(f"{url}/healthz").code == 200


def test_stop_does_not_wait_for_open_connections(serve: Serve) -> None:
    """A client with half a request is disconnected within about a second."""
    serving = serve(HealthSnapshot)
    host, port = serving.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\n")
        time.sleep(0.2)
        began = time.monotonic()
        serving.stop()
        assert time.monotonic() - began < 3
    assert eventually(lambda: not any(thread.name == "http" for thread in threading.enumerate()))


@pytest.fixture
def open_sockets() -> Iterator[Callable[[Serving, int, bytes], list[socket.socket]]]:
    """Open `count` sockets, and send the same bytes on each."""
    with ExitStack() as stack:

        def opened(serving: Serving, count: int, data: bytes) -> list[socket.socket]:
            host, port = serving.url.removeprefix("http://").split(":")
            sockets = []
            for _ in range(count):
                sockets.append(stack.enter_context(socket.create_connection((host, int(port)))))
                sockets[-1].sendall(data)
            return sockets

        yield opened


OpenSockets = Callable[[Serving, int, bytes], list[socket.socket]]


@pytest.mark.parametrize(
    "data", [b"", b"GET /status HTTP/1.1\r\nHost: a\r\n"], ids=["nothing", "half a request"]
)
def test_idle_sockets_do_not_make_the_daemon_unhealthy(
    serve: Serve, open_sockets: OpenSockets, data: bytes
) -> None:
    """A probe that is answered 503 would restart a healthy daemon."""
    serving = serve(lambda: take_snapshot(FakeHealthSource(status())))
    sockets = open_sockets(serving, 400, data)
    for path in ("healthz", "readyz", "metrics"):
        assert get(f"{serving.url}/{path}", seconds=3).code == 200
    open_now = [one for one in sockets if not is_closed(one)]
    assert 190 <= len(open_now) <= 200, "they take the files that the cycles need"
    assert is_closed(sockets[0])
    assert not is_closed(sockets[-1])


def is_closed(one: socket.socket) -> bool:
    """Whether the server has closed the connection."""
    one.setblocking(False)  # noqa: FBT003 (its only argument)
    try:
        return one.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /healthz HTTP/1.1\r\nHost",
        b"POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1",
    ],
    ids=["nothing", "half a request", "one and a half", "half a body"],
)
def test_client_without_a_full_request_is_disconnected(
    serve: Serve, open_sockets: OpenSockets, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    """Even if it keeps sending bytes."""
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.3)
    serving = serve(HealthSnapshot)
    [one] = open_sockets(serving, 1, data)
    one.settimeout(3)
    began = time.monotonic()
    with suppress(ConnectionResetError):
        while one.recv(4096):
            with suppress(OSError):
                one.sendall(b"x")
    assert time.monotonic() - began < 2


def test_client_with_timely_requests_keeps_its_connection(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request has its own deadline."""
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.5)
    address = serve(HealthSnapshot).url.removeprefix("http://")
    connection = HTTPConnection(address, timeout=3)
    connection.connect()
    first = connection.sock
    for _ in range(4):
        time.sleep(0.3)
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b"ok\n"
    assert connection.sock is first
    connection.close()


def test_liveness_answers_under_a_flood_of_requests(serve: Serve, open_sockets: OpenSockets) -> None:
    """Waiting requests are bounded; further ones are answered 503."""
    looking, go_on = threading.Event(), threading.Event()

    def stuck() -> HealthSnapshot:
        looking.set()
        go_on.wait(20)
        return HealthSnapshot()

    serving = serve(stuck)
    open_sockets(serving, 200, b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n")
    assert looking.wait(5)

    def is_refused() -> bool:
        try:
            return get(f"{serving.url}/readyz", seconds=0.5).code == 503
        except TimeoutError:  # it was let in, as not all of the others were there yet
            return False

    assert eventually(is_refused, 10)
    assert get(f"{serving.url}/readyz", seconds=3).text == "too many requests at a time\n"
    assert get(f"{serving.url}/healthz", seconds=3).code == 200
    go_on.set()


def test_ipv6_wildcard_answers_over_ipv4_too(serve: Serve) -> None:
    """If the machine has IPv6."""
    try:
        socket.create_server(("::", 0), family=socket.AF_INET6).close()
    except OSError:
        return
    port = serve(HealthSnapshot, "::").url.rpartition(":")[2]
    assert get(f"http://127.0.0.1:{port}/healthz").code == 200
    assert get(f"http://[::1]:{port}/healthz").code == 200
