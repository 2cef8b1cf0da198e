"""Bare insertion: the commands that fill the same keys, packed in advance and only sent.

`python -m bench.insertion FILE COMMANDS HOST PORT` sends the file as fast as the socket takes it, and prints the time
from connecting to the last reply. For each key the file has DEL, HSET or RPUSH, and EXPIRE: no transactions, no
scripts, no other keys. A thread has the kernel copy the file into the socket while the replies are parsed, so Redis is
the bottleneck.
"""

import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import hiredis

from bench.servers import Source
from schemas.documents import FAMILIES
from schemas.operations import Put

_CHUNK: Final = 1 << 18


class Refused(Exception):
    """Redis answered a command with an error, or did not answer."""


class Packed(NamedTuple):
    """A file of packed commands, and how many there are."""

    path: Path
    commands: int


def pack(source: Source, path: Path) -> Packed:
    """Write the commands that fill the keys of these documents, in the order of the documents."""
    count = 0
    with path.open("wb") as file:
        for number in range(source.documents):
            for entry in source.entries(number):
                for command in _commands(entry):
                    file.write(hiredis.pack_command(command))
                    count += 1
    return Packed(path, count)


def _commands(entry: Put) -> Iterator[tuple[Any, ...]]:
    yield ("DEL", entry.key)
    if isinstance(entry.value, dict):
        yield ("HSET", entry.key, *chain.from_iterable(entry.value.items()))
    else:
        yield ("RPUSH", entry.key, *entry.value)
    yield ("EXPIRE", entry.key, FAMILIES[entry.family].ttl or 0)


def send(packed: Packed, host: str, port: int) -> float:
    """Send the file and read replies until the server closes the connection; returns seconds.

    Raises:
        Refused: one of the replies is an error, or one is missing.
    """
    began = time.perf_counter()
    replies, refused = 0, None
    reader = hiredis.Reader()
    with socket.create_connection((host, port)) as connection, packed.path.open("rb") as file:
        sender = threading.Thread(target=_send, args=(connection, file))
        sender.start()
        while data := connection.recv(_CHUNK):
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                replies += 1
                if isinstance(reply, Exception):
                    refused = reply
        sender.join()
    if refused or replies != packed.commands:
        raise Refused(f"{replies} replies to {packed.commands} commands; {refused}")
    return time.perf_counter() - began


def _send(connection: socket.socket, file: IO[bytes]) -> None:
    with suppress(OSError):  # the connection broke: replies will be missing
        connection.sendfile(file)
        connection.shutdown(socket.SHUT_WR)  # Redis answers all commands, then closes


if __name__ == "__main__":
    seconds = send(Packed(Path(sys.argv[1]), int(sys.argv[2])), sys.argv[3], int(sys.argv[4]))
    sys.stdout.write(json.dumps({"seconds": seconds}))
