"""The HTTP server of the daemon: uvicorn in a thread, without request log and signal handlers.

Clients that send no complete request, or do not read the answer, are disconnected. With too many connections the one
that has been idle longest is closed: so `/healthz` always answers, and idle connections do not use up file descriptors.
"""

import asyncio
import os
import socket
import threading
from typing import Any, Final

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from etl.errors import ConfigurationError

_CONNECTIONS: Final = 200
"""Maximum of open connections."""

_REQUESTS: Final = 200
"""Maximum of concurrent requests; further ones are answered with 503."""

_UNLIMITED_PATH: Final = "/healthz"
"""Exempt from the maximum: a failing liveness probe would restart the daemon."""

REQUEST_SECONDS: Final = 5.0
"""Time limit for sending a request."""

_ANSWER_SECONDS: Final = 30.0
"""Time limit for an answer, including the client that reads it."""


class Serving:
    """Listens from construction on, and answers from `start` to `stop`.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """

    def __init__(self, app: ASGIApp, host: str, port: int) -> None:
        self._socket = _listen(host, port)
        config = uvicorn.Config(
            _limited(app),
            loop="asyncio",
            http=_ConnectionWithDeadlines,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    @property
    def url(self) -> str:
        """The base URL: `http://127.0.0.1:8088`."""
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def start(self) -> None:
        """Start answering."""
        self._thread.start()

    def stop(self) -> None:
        """Finish current requests within a second, and stop."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        self._server.run([self._socket])


class _ConnectionWithDeadlines(H11Protocol):
    """One connection, with a deadline for each request and for each answer."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._was_busy: bool | None = None
        self._since = 0.0
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        cycle: RequestResponseCycle | None = self.cycle  # None at first, in spite of its type
        return cycle is not None and not cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """Start the deadline of the first request; close the longest idle connection if there are too many."""
        super().connection_made(transport)
        self._watch()
        if len(self.connections) > _CONNECTIONS:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        """Update the deadline when a request is complete."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Start the deadline of the next request."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the deadline."""
        super().connection_lost(exc)
        if self._deadline is not None:
            self._deadline.cancel()

    def _make_room(self) -> None:
        connections = [one for one in self.connections if isinstance(one, _ConnectionWithDeadlines)]
        longest = min((one for one in connections if not one.busy), key=lambda one: one._since)  # noqa: SLF001 (of this class)
        if longest is not self:
            self.connections.discard(
                longest
            )  # now: further connections may be made before this one is closed
            longest.transport.abort()

    def _watch(self) -> None:
        """Start a new deadline if it has changed between idle and busy."""
        if self.busy == self._was_busy:
            return
        self._was_busy, self._since = self.busy, self.loop.time()
        if self._deadline is not None:
            self._deadline.cancel()
        seconds = _ANSWER_SECONDS if self.busy else REQUEST_SECONDS
        self._deadline = self.loop.call_later(seconds, self.transport.abort)


def _limited(app: ASGIApp) -> ASGIApp:
    """The application with a maximum of concurrent requests."""
    in_progress = 0

    async def limited(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal in_progress
        if in_progress >= _REQUESTS and scope["path"] != _UNLIMITED_PATH:
            await PlainTextResponse("too many requests at a time\n", 503)(scope, receive, send)
            return
        in_progress += 1
        try:
            await app(scope, receive, send)
        finally:
            in_progress -= 1

    return limited


def _listen(host: str, port: int) -> socket.socket:
    try:
        [(family, *_), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # The IPv6 wildcard includes all IPv4 addresses.
        both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        return socket.create_server((host, port), family=family, dualstack_ipv6=both)
    except socket.gaierror as error:
        reason = error.strerror
    except OSError as error:
        reason = os.strerror(error.errno or 0)  # its own text repeats the address
    raise ConfigurationError(
        f"cannot listen on {host}:{port}: {reason} (choose another http.host or http.port; port 0 takes a"
        " free one)"
    )
