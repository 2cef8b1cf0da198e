"""The most Redis takes: the very commands of a backfill, ready on disk, and every reply read.

`python -m bench.ceiling FILE REPLIES HOST PORT` sends the file as fast as the socket takes it and prints how
long that took, from connecting to the last reply. The file holds the data transactions of a real run of the
product (see `bench.recorder`): nothing is read from MongoDB, validated or encoded here. The kernel copies the
file into the socket while this process does nothing but parse replies, so Redis is what it waits for.
"""

import json
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import hiredis

from bench.recorder import Recording

_CHUNK: Final = 1 << 18


class Refused(Exception):
    """Redis answered a command with an error, or not at all."""


def replay(recording: Recording, host: str, port: int) -> dict[str, Any]:
    """Send the recording and read replies until the server has nothing more to say.

    Returns:
        `seconds` it took and the number of `replies`, those inside an EXEC not counted.

    Raises:
        Refused: one of the replies is an error, also inside an EXEC, or one is missing.
    """
    began = time.perf_counter()
    replies = _Replies()
    with socket.create_connection((host, port)) as connection, recording.path.open("rb") as file:
        sender = threading.Thread(target=_send, args=(connection, file))
        sender.start()
        replies.read(connection)
        sender.join()
    seconds = time.perf_counter() - began
    if replies.refused or replies.count != recording.replies:
        raise Refused(f"{replies.count} replies to {recording.replies} commands; {replies.refused}")
    return {"seconds": seconds, "replies": replies.count}


def _send(connection: socket.socket, file: Any) -> None:
    with suppress(OSError):  # the connection broke: replies will be missing
        connection.sendfile(file)
        connection.shutdown(socket.SHUT_WR)  # Redis answers what it has and closes


class _Replies:
    """Counts replies, and remembers an error wherever there is one."""

    def __init__(self) -> None:
        self.count = 0
        self.refused: str | None = None

    def read(self, connection: socket.socket) -> None:
        """Read until the server closes."""
        reader = hiredis.Reader(replyError=self._refuse)
        while data := connection.recv(_CHUNK):
            reader.feed(data)
            while reader.gets() is not False:
                self.count += 1

    def _refuse(self, message: str) -> Exception:
        """The parser calls this for every error it meets, inside an array too."""
        self.refused = self.refused or message
        return Refused(message)


def main(path: str, replies: str, host: str, port: str) -> None:
    """Replay a file and print what that took."""
    answer = replay(Recording(Path(path), int(replies)), host, int(port))
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:5])
