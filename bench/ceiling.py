"""The most Redis takes: the very commands of a backfill, ready on disk, and every reply read.

`python -m bench.ceiling FILE HOST PORT` sends the file as fast as the socket takes it and prints how long
that took, from connecting to the last reply. The file holds the data transactions of a real run of the
product (see `bench.recorder`): nothing is read from MongoDB, validated or encoded here. The kernel copies
the file into the socket while this process does nothing but parse replies, so Redis is what it waits for.
"""

import json
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

import hiredis

_CHUNK: Final = 1 << 18


class Refused(Exception):
    """Redis answered a command with an error."""


def replay(path: Path, host: str, port: int) -> dict[str, Any]:
    """Send the file and read replies until the server has nothing more to say.

    Returns:
        `seconds` it took and the number of `replies`, those inside an EXEC not counted.

    Raises:
        Refused: one of the replies is an error, also inside an EXEC.
    """
    began = time.perf_counter()
    with socket.create_connection((host, port)) as connection, path.open("rb") as file:
        sender = threading.Thread(target=_send, args=(connection, file))
        sender.start()
        replies = _count(connection)
        sender.join()
    return {"seconds": time.perf_counter() - began, "replies": replies}


def _send(connection: socket.socket, file: Any) -> None:
    connection.sendfile(file)
    connection.shutdown(socket.SHUT_WR)  # Redis answers what it has and closes


def _count(connection: socket.socket) -> int:
    reader = hiredis.Reader(replyError=Refused)
    replies = 0
    while data := connection.recv(_CHUNK):
        reader.feed(data)
        while (reply := reader.gets()) is not False:
            replies += 1
            if isinstance(reply, Refused):
                raise reply
            if isinstance(reply, list):
                _none_refused(reply)
    return replies


def _none_refused(reply: list[Any]) -> None:
    for inner in reply:
        if isinstance(inner, Refused):
            raise inner


if __name__ == "__main__":
    sys.stdout.write(json.dumps(replay(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
