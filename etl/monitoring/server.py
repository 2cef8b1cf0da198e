"""The HTTP server of the daemon: uvicorn in a thread, that neither logs requests nor handles signals."""

import os
import socket
import threading
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from etl.errors import Misconfigured

_CONNECTIONS: Final = 200
"""With more open at once, further ones are answered 503: a flood must not starve the cycles."""


class Serving:
    """Listens from the beginning, and answers from `start` to `stop`.

    Raises:
        Misconfigured: the address cannot be listened on.
    """

    def __init__(self, app: ASGIApp, host: str, port: int) -> None:
        self._socket = _listen(host, port)
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    @property
    def url(self) -> str:
        """Where it listens: `http://127.0.0.1:8088`."""
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer what is under way, for a second at most, and end."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        self._server.run([self._socket])


def _listen(host: str, port: int) -> socket.socket:
    try:
        [(family, *_), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return socket.create_server((host, port), family=family)
    except socket.gaierror as error:
        reason = error.strerror
    except OSError as error:
        reason = os.strerror(error.errno or 0)  # its own text would name the address again
    raise Misconfigured(
        f"cannot listen on {host}:{port}: {reason} (choose another http.host or http.port; port 0 takes a"
        " free one)"
    )
