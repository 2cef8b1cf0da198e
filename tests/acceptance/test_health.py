"""`etl health`: the daemon asked by the product itself."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.support.command import Etl, StartEtl
from tests.support.daemons import every, health_check, is_ready, url_of
from tests.support.waiting import eventually


def test_the_health_check_of_the_image(start_etl: StartEtl, typed: Etl, tmp_path: Path) -> None:
    """It fails without a daemon, and passes once that is ready; it knows the port from the settings file."""
    name, *words = health_check()
    assert name == "etl"
    settings = every(60)
    port = settings.pop("ETL_HTTP__PORT")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "etl.yaml").write_text(f"http: {{port: {port}, host: '0.0.0.0'}}\n")
    unset = {"ETL_HTTP__PORT": ""}
    before = typed(*words, **unset)
    assert before.code == 1
    assert before.err.startswith(
        f"error: no daemon answers at http://127.0.0.1:{port}: Connection refused (is "
    )
    start_etl("run", **settings, **unset)
    assert eventually(lambda: is_ready(f"http://127.0.0.1:{port}"))
    ready = typed(*words, **unset)
    assert (ready.code, ready.out, ready.err) == (0, "ready\n", "")
    assert typed("health", "--json", **unset).json == {"ready": True, "problems": []}


def test_what_is_wrong_is_told(start_etl: StartEtl, typed: Etl) -> None:
    """A daemon whose servers are away is not ready."""
    settings = every(60) | {"ETL_REDIS__URL": "redis://127.0.0.1:1/0"}
    start_etl("run", **settings)
    assert eventually(lambda: "no daemon" not in typed("health", **settings).err)
    found = typed("health", **settings)
    assert (found.code, found.err) == (1, "")
    assert found.out.startswith("not ready\n  Redis at 127.0.0.1:1 does not answer")
    found = typed("health", "--json", **settings)
    assert (found.code, found.json["ready"]) == (1, False)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::", "::1", "localhost"])  # noqa: S104 (to be tried)
def test_it_asks_where_the_settings_say(start_etl: StartEtl, typed: Etl, host: str) -> None:
    """An address that stands for all of them is asked over the loopback interface; where there is IPv6."""
    if ":" in host:
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            return
    settings = every(60) | {"ETL_HTTP__HOST": host}
    start_etl("run", **settings)
    assert eventually(lambda: typed("health", **settings).code == 0)
    if host == "::":
        assert is_ready(url_of(settings)), "the wildcard of IPv6 includes IPv4"


def test_a_port_that_only_the_daemon_knows(typed: Etl) -> None:
    """It cannot be asked for."""
    result = typed("health", ETL_HTTP__PORT="0")
    assert result.code == 2
    assert result.err == "error: http.port is 0, so the port of the daemon is unknown: set a port\n"


@pytest.fixture(params=[b"hello", b"[1]", b'{"ready": 1}', b"{}"])
def another(request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of a server that is no daemon."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(request.param)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_another_server_on_that_port(typed: Etl, another: int) -> None:
    """It is told as such."""
    result = typed("health", ETL_HTTP__PORT=str(another))
    assert result.code == 1
    assert (
        result.err
        == f"error: another program answers at http://127.0.0.1:{another}, not the daemon: see http.port\n"
    )


def test_a_server_that_does_not_speak_http(typed: Etl) -> None:
    """Likewise."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]

        def speak() -> None:
            peer, _ = server.accept()
            with peer:
                peer.sendall(b"SSH-2.0-OpenSSH\r\n")
                peer.recv(1000)

        thread = threading.Thread(target=speak)
        thread.start()
        result = typed("health", ETL_HTTP__PORT=str(port))
        thread.join()
    assert result.code == 1
    assert "not the daemon: see http.port" in result.err
