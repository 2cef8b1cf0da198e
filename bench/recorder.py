"""Records what a client sends to Redis, and keeps of it the commands that carry data.

What is kept: of every MULTI … EXEC the commands on keys of the contract (DEL, RPUSH, HSET, EXPIRE), with
MULTI and EXEC around them, in the order they were sent, byte for byte. What is left out: what a client does
besides (logging in, loading scripts, taking the lease, WATCH, looking at locks, scripts, the checkpoint).
"""

import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, Self

import hiredis

from etl.demo.process import HOST, free_port
from schemas.families import CONTRACT, LAST_SYNC

Command = list[bytes]

_CHUNK: Final = 1 << 18
_SCRIPTS: Final = {b"EVAL", b"EVALSHA"}
_AROUND: Final = {b"MULTI", b"EXEC"}
_DATA: Final = tuple(family.prefix.encode() for family in CONTRACT if family is not LAST_SYNC)


class Recorder:
    """A TCP proxy that keeps what clients send, one file per connection, in the folder it is given."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port = free_port()
        self._onward = (HOST, port)
        self._folder = folder
        self._listener = socket.create_server((HOST, self.port))
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)

    @property
    def url(self) -> str:
        """What a client needs to be recorded."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def files(self) -> list[Path]:
        """What was sent, one file per connection, in the order they were made."""
        return sorted(self._folder.glob("*.resp"))

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take no more, and wait until all that clients sent has been kept."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was shut down
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._onward)
                path = self._folder / f"{len(self._threads):06}.resp"
                self._start(client, server, path)
                self._start(server, client, None)

    def _start(self, origin: socket.socket, target: socket.socket, path: Path | None) -> None:
        thread = threading.Thread(target=_pass_on, args=(origin, target, path), daemon=True)
        self._threads.append(thread)
        thread.start()


def _pass_on(origin: socket.socket, target: socket.socket, path: Path | None) -> None:
    with origin, (path or Path("/dev/null")).open("wb") as kept, suppress(OSError):
        while data := origin.recv(_CHUNK):
            kept.write(data)
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


class Recording(NamedTuple):
    """The commands that carry data, in one file, and how many replies they get."""

    path: Path
    replies: int


def keep_data(files: Iterable[Path], path: Path) -> Recording:
    """Write the commands of these recordings that carry data to `path`."""
    replies = 0
    with path.open("wb") as kept:
        for file in files:
            for block in transactions(sent_in(file)):
                replies += len(block)
                kept.writelines(map(_packed, block))
    return Recording(path, replies)


def without_transactions(recording: Recording, path: Path) -> Recording:
    """The same commands without MULTI and EXEC around them, written to `path`."""
    replies = 0
    with path.open("wb") as kept:
        for command in sent_in(recording.path):
            if command[0] not in _AROUND:
                replies += 1
                kept.write(_packed(command))
    return Recording(path, replies)


def transactions(commands: Iterable[Command]) -> Iterator[list[Command]]:
    """Every transaction with what it does to keys of the contract; those without any are left out."""
    block: list[Command] | None = None
    for command in commands:
        name = command[0].upper()
        if name == b"MULTI":
            block = [command]
        elif name in {b"EXEC", b"DISCARD"}:
            if block is not None and len(block) > 1 and name == b"EXEC":
                yield [*block, command]
            block = None
        elif block is not None and name not in _SCRIPTS and command[1].startswith(_DATA):
            block.append(command)


def sent_in(file: Path) -> Iterator[Command]:
    """The commands in the bytes that one client sent: each is an array, as some replies are."""
    reader = hiredis.Reader()
    with file.open("rb") as stream:
        while data := stream.read(_CHUNK):
            reader.feed(data)
            while (command := reader.gets()) is not False:
                yield command


def _packed(command: Command) -> bytes:
    # hiredis types its argument as a tuple of one, and means a tuple of any length.
    return hiredis.pack_command(tuple(command))  # type: ignore[arg-type,no-any-return]
