"""A TCP proxy between the code under test and a real server that injects network faults and counts.

One thread runs it all, so that a command such as `cut` has happened when it returns. Sockets do not
block: a server that is frozen must not freeze the proxy with it.
"""

import queue
import select
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from functools import partial
from typing import Literal, Self

from etl.demo.process import HOST, Server, free_port

CHUNK = 65_536
REMEMBERED = 256  # bytes kept of the beginning of every burst
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, zero seconds; closing then sends RST, not FIN

Way = Literal["requests", "answers"]


class _Mode(Enum):
    PASS = auto()
    STALLED = auto()
    DEAF = auto()


class _End:
    """One of the two sockets of a connection, the client's or the server's."""

    def __init__(self, sock: socket.socket, sends: Way) -> None:
        self.socket = sock
        self.sends: Way = sends  # what arrives here
        self.unsent = bytearray()  # what the peer sent and this end has not taken yet
        self.spoke_last = False
        self.stuck = False  # unsent bytes wait for `resume`
        self.peer = self
        sock.settimeout(0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fileno(self) -> int:
        return self.socket.fileno()

    def give(self) -> None:
        """Send as much as the socket accepts now."""
        with suppress(BlockingIOError):
            del self.unsent[: self.socket.send(self.unsent)]


class Proxy:
    """A proxy in front of `server`; without a fault it forwards everything.

    Counts since the beginning or the last `forget`: `connections` accepted, `requests` (the first bytes
    of every burst a client sent after it had been answered), `swallowed` bytes, `dropped` connections.
    A pipeline that the server answers before the client has finished may count as several bursts.
    """

    def __init__(self, server: Server) -> None:
        self._target = server
        self.port = free_port()
        self.forget()
        self._mode = _Mode.PASS
        self._limits: dict[Way, int] = {}
        self._trap: bytes | None = None
        self._ends: list[_End] = []
        self._commands: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._bell, self._ear = socket.socketpair()
        self._listener: socket.socket | None = None
        self._open = True
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    @property
    def address(self) -> str:
        """Where the proxy listens."""
        return f"{HOST}:{self.port}"

    @property
    def round_trips(self) -> int:
        """The number of bursts that clients have sent, each after the answer to the previous one."""
        return len(self.requests)

    @property
    def held(self) -> int:
        """The number of bytes that wait in a stalled proxy."""
        return sum(len(end.unsent) for end in tuple(self._ends))

    @property
    def is_holding(self) -> bool:
        """Whether `hold_at` has caught a connection that is not resumed yet."""
        return any(end.stuck for end in tuple(self._ends))

    def through(self, uri: str) -> str:
        """`uri` of the server behind, with this proxy's address in its place.

        A MongoDB driver would otherwise ask the replica set for its members and go around the proxy.
        """
        mine = uri.replace(self._target.address, self.address)
        return mine.replace("replicaSet=rs0", "directConnection=true")

    def forget(self) -> None:
        """Set every count to zero."""
        self.connections = 0
        self.requests: list[bytes] = []
        self.swallowed = 0
        self.dropped = 0

    def resume(self) -> None:
        """Forward everything again; connections of a deaf proxy are reset, because they have lost bytes."""
        self._do(self._resume)

    def cut(self) -> int:
        """Reset every connection and refuse new ones; returns the number of reset connections."""
        alive = len(self._ends) // 2
        self._do(self._cut)
        return alive

    def stall(self) -> None:
        """Stop forwarding in both directions without loss: `resume` delivers the held bytes."""
        self._do(lambda: setattr(self, "_mode", _Mode.STALLED))

    def deafen(self) -> None:
        """Accept connections and bytes, and never answer."""
        self._do(lambda: setattr(self, "_mode", _Mode.DEAF))

    def drop_after(self, count: int, of: Way) -> None:
        """Once: when `count` further bytes `of` requests or answers have passed, reset their connection."""
        self._do(lambda: self._limits.update({of: count}))

    def hold_at(self, needle: bytes) -> None:
        """Once: hold a request that contains `needle`, with all later bytes of its connection.

        Other connections are served. `resume` delivers it, also if its client has disconnected meanwhile.
        """
        self._do(lambda: setattr(self, "_trap", needle))

    def __enter__(self) -> Self:
        self._listen()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._cut)
        self._do(lambda: setattr(self, "_open", False))
        self._thread.join()
        self._bell.close()
        self._ear.close()

    def _do(self, command: Callable[[], object]) -> None:
        """Have `command` run on the proxy's thread, and wait until it has."""
        done = threading.Event()
        self._commands.put(command)
        self._commands.put(done.set)
        self._bell.send(b"..")  # one byte for each
        done.wait()

    # What follows runs on the proxy's thread.

    def _run(self) -> None:
        while self._open:
            doors: list[socket.socket | _End] = [self._ear]
            doors += [self._listener] if self._listener else []
            readers = [end for end in self._ends if self._may_read(end)]
            writers = [end for end in self._ends if end.unsent and self._may_write(end)]
            readable, writable, _ = select.select([*doors, *readers], writers, [])
            for end in writable:
                self._serve(end, end.give)
            for end in readers:
                if end in readable:
                    self._serve(end, partial(self._receive, end))
            if self._listener in readable:
                self._accept()
            if self._ear in readable:
                self._run_commands()

    def _may_read(self, end: _End) -> bool:
        """Read from an end only when its peer has accepted everything, so that back pressure is passed on."""
        return not end.peer.unsent or self._mode is _Mode.DEAF

    def _may_write(self, end: _End) -> bool:
        return self._mode is _Mode.PASS and not end.stuck

    def _run_commands(self) -> None:
        for _ in self._ear.recv(CHUNK):
            self._commands.get()()

    def _serve(self, end: _End, action: Callable[[], None]) -> None:
        """Do something with an end that may have been closed meanwhile, or is closed now."""
        if end in self._ends:
            try:
                action()
            except OSError:
                self._close(end)

    def _receive(self, end: _End) -> None:
        data = end.socket.recv(CHUNK)
        if not data:
            self._close(end)
        elif self._mode is _Mode.DEAF:
            self.swallowed += len(data)
        else:
            self._count(end, data)
            self._forward(end, data)

    def _count(self, end: _End, data: bytes) -> None:
        if end.sends == "requests" and not end.spoke_last:
            self.requests.append(data[:REMEMBERED])
        end.spoke_last, end.peer.spoke_last = True, False

    def _forward(self, end: _End, data: bytes) -> None:
        limit = self._limits.pop(end.sends, None)
        if limit is not None and len(data) >= limit:
            end.peer.socket.settimeout(5)
            end.peer.socket.sendall(data[:limit])
            self.dropped += 1
            self._close(end)
            return
        if limit is not None:
            self._limits[end.sends] = limit - len(data)
        if self._trap is not None and end.sends == "requests" and self._trap in data:
            end.peer.stuck, self._trap = True, None
        end.peer.unsent += data
        if self._may_write(end.peer):
            end.peer.give()

    def _accept(self) -> None:
        assert self._listener is not None
        accepted, _ = self._listener.accept()
        self.connections += 1
        try:
            onward = socket.create_connection((HOST, self._target.port), timeout=5)
        except OSError:
            _reset(accepted)
            return
        client, server = _End(accepted, "requests"), _End(onward, "answers")
        client.peer, server.peer = server, client
        self._ends += [client, server]

    def _listen(self) -> None:
        self._listener = socket.create_server((HOST, self.port))

    def _resume(self) -> None:
        if self._mode is _Mode.DEAF:
            self._close_all()
        if self._listener is None:
            self._listen()
        for end in self._ends:
            end.stuck = False
        self._mode = _Mode.PASS

    def _cut(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._close_all()

    def _close_all(self) -> None:
        for end in tuple(self._ends):
            if end in self._ends:
                self._close(end)

    def _close(self, end: _End) -> None:
        """Reset the client; the server gets an orderly end, after every byte that was passed on."""
        client, server = (end, end.peer) if end.sends == "requests" else (end.peer, end)
        _reset(client.socket)
        server.socket.close()
        self._ends = [other for other in self._ends if other not in (client, server)]


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.close()
