"""TLS for tests: a certificate authority, and a TLS server in front of a plain one."""

import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

import trustme

from etl.demo.process import HOST

_HANDSHAKE: Final = b"\x16"
"""The first byte of a TLS connection."""


class Certificates(NamedTuple):
    """Files of an authority: its certificate, and a server certificate with its key."""

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
    """A connection, decrypted and forwarded to the plain server."""

    server: "_TlsServer"

    def handle(self) -> None:
        with (
            suppress(OSError),
            self.server.context.wrap_socket(self.request, server_side=True) as secure,
            socket.create_connection((HOST, self.server.target)) as plain,
        ):
            back = threading.Thread(target=_copy, args=(plain, secure))
            back.start()
            _copy(secure, plain)
            back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(65_536):
            sink.sendall(chunk)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


class _ForwardBoth(_Forward):
    """The same, but plain connections are forwarded unchanged: the Sentinels use no TLS."""

    def handle(self) -> None:
        if self.request.recv(1, socket.MSG_PEEK) == _HANDSHAKE:
            self.server.encrypted.set()
            super().handle()
            return
        with suppress(OSError), socket.create_connection((HOST, self.server.target)) as plain:
            back = threading.Thread(target=_copy, args=(plain, self.request))
            back.start()
            _copy(self.request, plain)
            back.join()


class _TlsServer(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, target: int, certificate: Path, handler: type[_Forward]) -> None:
        super().__init__((HOST, 0), handler)
        self.target = target
        self.encrypted = threading.Event()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)


@contextmanager
def tls_in_front_of(port: int, certificate: Path) -> Iterator[int]:
    """The port of a TLS server that forwards everything to `port`."""
    with _serving(_TlsServer(port, certificate, _Forward)) as server:
        yield int(server.server_address[1])


@contextmanager
def tls_or_plain_in_front_of(port: int, certificate: Path, seen: dict[int, threading.Event]) -> Iterator[int]:
    """The same with and without TLS; `seen` gets an event for `port`, which the first TLS connection sets."""
    with _serving(_TlsServer(port, certificate, _ForwardBoth)) as server:
        seen[port] = server.encrypted
        yield int(server.server_address[1])


@contextmanager
def _serving(server: _TlsServer) -> Iterator[_TlsServer]:
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
