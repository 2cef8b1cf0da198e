"""RESP, the protocol of Redis: commands as bytes, ready to be sent.

See https://redis.io/docs/latest/develop/reference/protocol-spec/. The only module that imports `hiredis`.
"""

import socket
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, Final

import hiredis

from etl.model.encoded import Arguments, Packed

Command = tuple[str | bytes | int, ...]
"""A command and its arguments."""


Sent = Command | Packed
"""What may be sent: a command, or many that are encoded already."""


_CHUNK: Final = 256 * 1024


class Replies:
    """Reads the replies to commands from a socket. Error replies are made by `error` of their text.

    The errors are noted as they are met, the first one first, also those inside an EXEC: so nobody has to
    look at each of thousands of replies to know that none is an error.
    """

    def __init__(self, error: Callable[[str], Exception]) -> None:
        self._error = error
        self._reader = hiredis.Reader(replyError=self._note, encoding="utf-8", errors="replace")
        self.errors: list[Exception] = []

    def _note(self, text: str) -> Exception:
        error = self._error(text)
        self.errors.append(error)
        return error

    def read(self, connection: socket.socket, count: int) -> list[Any]:
        """The next `count` replies.

        Raises:
            EOFError: the server has closed the connection.
            OSError: it is broken, or nothing came in time.
        """
        self.errors = []
        replies: list[Any] = []
        reader, left = self._reader, count
        while left:
            reply = reader.gets()
            if reply is not False:  # which RESP2 does not know, so that it says: nothing more is there
                replies.append(reply)
                left -= 1
            elif data := connection.recv(_CHUNK):
                reader.feed(data)
            else:
                raise EOFError
        return replies


def pack_one(command: Command) -> bytes:
    """The bytes of one command.

    Raises:
        UnicodeEncodeError: a text holds a lone surrogate, which UTF-8 cannot carry.
    """
    # hiredis types its argument as a tuple of one, and means a tuple of any length.
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]
    return packed


def pack(commands: Iterable[Command]) -> bytes:
    """The bytes of these commands.

    Raises:
        UnicodeEncodeError: a text holds a lone surrogate, which UTF-8 cannot carry.
    """
    return b"".join(map(pack_one, commands))


def arguments(values: Sequence[str | bytes | int]) -> Arguments:
    """These arguments, as they follow the name of a command.

    Raises:
        UnicodeEncodeError: as above.
    """
    packed = pack_one(tuple(values))
    return Arguments(packed[packed.index(b"\n") + 1 :], len(values))


def pairs(items: Iterable[tuple[str, str]]) -> Arguments:
    """Fields and their values in turn, as HSET takes them.

    Raises:
        UnicodeEncodeError: as above.
    """
    return arguments([*chain.from_iterable(items)])


def call(command: Command, more: Arguments) -> Packed:
    """A command with more arguments after its own."""
    own = arguments(command)
    return Packed(b"*%d\r\n%b%b" % (own.length + more.length, own.data, more.data), 1)
