"""TLS for tests: a certificate authority of our own, and a server that wraps a plain one."""

import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import trustme

from etl.demo.process import HOST


class Certificates(NamedTuple):
    """Files of one authority: its certificate, and a server's certificate with its key."""

    authority: Path
    server: Path


def certificates(folder: Path) -> Certificates:
    """A new authority and a certificate for the loopback address, written below `folder`."""
    folder.mkdir()
    authority = trustme.CA()
    found = Certificates(folder / "authority.pem", folder / "server.pem")
    authority.cert_pem.write_to_path(str(found.authority))
    authority.issue_cert(HOST, "localhost").private_key_and_cert_chain_pem.write_to_path(str(found.server))
    return found


class _Forward(socketserver.BaseRequestHandler):
    """One connection, decrypted and passed on to the plain server."""

    server: "_TlsServer"

    def handle(self) -> None:
        with (
            suppress(OSError),
            self.server.context.wrap_socket(self.request, server_side=True) as secure,
            socket.create_connection((HOST, self.server.target)) as plain,
        ):
            back = threading.Thread(target=_pour, args=(plain, secure))
            back.start()
            _pour(secure, plain)
            back.join()


def _pour(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(65_536):
            sink.sendall(chunk)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


class _TlsServer(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, target: int, certificate: Path) -> None:
        super().__init__((HOST, 0), _Forward)
        self.target = target
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)


@contextmanager
def tls_in_front_of(port: int, certificate: Path) -> Iterator[int]:
    """The port of a TLS server that passes everything on to `port`."""
    with _TlsServer(port, certificate) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield int(server.server_address[1])
        server.shutdown()
