"""`etl health`."""

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


def test_health_check_of_the_image_fails_until_the_daemon_is_ready(
    start_etl: StartEtl, etl_in_process: Etl, tmp_path: Path
) -> None:
    """The port is in the settings file."""
    name, *words = health_check()
    assert name == "etl"
    settings = every(60)
    port = settings.pop("ETL_HTTP__PORT")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "etl.yaml").write_text(f"http: {{port: {port}, host: '0.0.0.0'}}\n")
    unset = {"ETL_HTTP__PORT": ""}
    before = etl_in_process(*words, **unset)
    assert before.code == 1
    assert before.err.startswith(
        f"error: no daemon answers at http://127.0.0.1:{port}: Connection refused (is "
    )
    start_etl("run", **settings, **unset)
    assert eventually(lambda: is_ready(f"http://127.0.0.1:{port}"))
    ready = etl_in_process(*words, **unset)
    assert (ready.code, ready.out, ready.err) == (0, "ready\n", "")
    assert etl_in_process("health", "--json", **unset).json == {"ready": True, "problems": []}


def test_health_prints_the_problems_of_the_daemon(start_etl: StartEtl, etl_in_process: Etl) -> None:
    """A daemon without Redis is not ready."""
    settings = every(60) | {"ETL_REDIS__URL": "redis://127.0.0.1:1/0"}
    start_etl("run", **settings)
    assert eventually(lambda: "no daemon" not in etl_in_process("health", **settings).err)
    found = etl_in_process("health", **settings)
    assert (found.code, found.err) == (1, "")
    assert found.out.startswith("not ready\n  Redis at 127.0.0.1:1 does not answer")
    found = etl_in_process("health", "--json", **settings)
    assert (found.code, found.json["ready"]) == (1, False)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::", "::1", "localhost"])  # noqa: S104 (to be tried)
def test_health_asks_the_configured_address(start_etl: StartEtl, etl_in_process: Etl, host: str) -> None:
    """A wildcard address is asked over the loopback interface, if the machine has IPv6."""
    if ":" in host:
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            return
    settings = every(60) | {"ETL_HTTP__HOST": host}
    start_etl("run", **settings)
    assert eventually(lambda: etl_in_process("health", **settings).code == 0)
    if host == "::":
        assert is_ready(url_of(settings)), "the wildcard of IPv6 includes IPv4"


def test_health_with_port_0_is_refused(etl_in_process: Etl) -> None:
    """Only the daemon knows its port then."""
    result = etl_in_process("health", ETL_HTTP__PORT="0")
    assert result.code == 2
    assert result.err == "error: http.port is 0, so the port of the daemon is unknown: set a port\n"


@pytest.fixture(params=[b"hello", b"[1]", b'{"ready": 1}', b"{}"])
def other_server(request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of another HTTP server."""

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


def test_health_reports_another_http_server(etl_in_process: Etl, other_server: int) -> None:
    result = etl_in_process("health", ETL_HTTP__PORT=str(other_server))
    assert result.code == 1
    assert (
        result.err
        == f"error: another program answers at http://127.0.0.1:{other_server}, not the daemon: see http.port\n"
    )


def test_health_reports_a_server_without_http(etl_in_process: Etl) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]

        def speak() -> None:
            peer, _ = server.accept()
            with peer:
                peer.sendall(b"SSH-2.0-OpenSSH\r\n")
                peer.recv(1000)

        thread = threading.Thread(target=speak)
        thread.start()
        result = etl_in_process("health", ETL_HTTP__PORT=str(port))
        thread.join()
    assert result.code == 1
    assert "not the daemon: see http.port" in result.err
