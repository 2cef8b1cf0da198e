"""The HTTP server of the daemon: uvicorn in a thread, that neither logs requests nor handles signals.

A client that sends nothing, or half a request, or does not take its answer, is cut off in time. With many
connections open, a new one takes the place of the one that has waited longest for a request: so `/healthz`
is answered however many sockets somebody leaves open, and a flood does not take the cycles' files.
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

from etl.errors import Misconfigured

_CONNECTIONS: Final = 200
"""So many may be open before the one that has waited longest makes room."""

_REQUESTS: Final = 200
"""So many are answered at a time, further ones with 503."""

_ALWAYS: Final = "/healthz"
"""Answered however many requests there are: it costs nothing, and a probe restarts a daemon without it."""

REQUEST_SECONDS: Final = 5.0
"""How long a client may take to send a request."""

_ANSWER_SECONDS: Final = 30.0
"""How long the answer may take, including the client that reads it."""


class Serving:
    """Listens from the beginning, and answers from `start` to `stop`.

    Raises:
        Misconfigured: the address cannot be listened on.
    """

    def __init__(self, app: ASGIApp, host: str, port: int) -> None:
        self._socket = _listen(host, port)
        config = uvicorn.Config(
            _limited(app),
            loop="asyncio",
            http=_Impatient,
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


class _Impatient(H11Protocol):
    """One connection, with a deadline for each request and for each answer."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._was_busy: bool | None = None
        self._since = 0.0
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        cycle: RequestResponseCycle | None = self.cycle  # None at first, whatever its type says
        return cycle is not None and not cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """It waits for its first request; one that waits for longer may have to go."""
        super().connection_made(transport)
        self._watch()
        if len(self.connections) > _CONNECTIONS:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        """Perhaps a request is complete."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """It waits for the next request, unless that has come already."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        super().connection_lost(exc)
        if self._deadline is not None:
            self._deadline.cancel()

    def _make_room(self) -> None:
        idle = [one for one in self.connections if isinstance(one, _Impatient) and not one.busy]
        longest = min(idle, key=lambda one: one._since)  # noqa: SLF001 (of this class)
        if longest is not self:
            self.connections.discard(longest)  # now, as several may be made before this one is lost
            longest.transport.abort()

    def _watch(self) -> None:
        """Begin a new deadline where it has turned from waiting to answering, or back."""
        if self.busy == self._was_busy:
            return
        self._was_busy, self._since = self.busy, self.loop.time()
        if self._deadline is not None:
            self._deadline.cancel()
        seconds = _ANSWER_SECONDS if self.busy else REQUEST_SECONDS
        self._deadline = self.loop.call_later(seconds, self.transport.abort)


def _limited(app: ASGIApp) -> ASGIApp:
    """The application, for so many requests at a time."""
    under_way = 0

    async def limited(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal under_way
        if under_way >= _REQUESTS and scope["path"] != _ALWAYS:
            await PlainTextResponse("too many requests at a time\n", 503)(scope, receive, send)
            return
        under_way += 1
        try:
            await app(scope, receive, send)
        finally:
            under_way -= 1

    return limited


def _listen(host: str, port: int) -> socket.socket:
    try:
        [(family, *_), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # The wildcard of IPv6 means every address, those of IPv4 too.
        both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        return socket.create_server((host, port), family=family, dualstack_ipv6=both)
    except socket.gaierror as error:
        reason = error.strerror
    except OSError as error:
        reason = os.strerror(error.errno or 0)  # its own text would name the address again
    raise Misconfigured(
        f"cannot listen on {host}:{port}: {reason} (choose another http.host or http.port; port 0 takes a"
        " free one)"
    )
