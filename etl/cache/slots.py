"""Commands in a Redis Cluster: which slot each belongs to, and those that span slots in pieces. Pure.

See "Redis cluster specification", key distribution model.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from redis.crc import key_slot

Command = tuple[str | bytes | int, ...]

_KEYLESS: Final = frozenset({"TIME", "PING", "INFO", "CONFIG", "SCRIPT", "ACL", "CLUSTER", "SCAN", "WAIT"})
_SCRIPT: Final = frozenset({"EVALSHA", "EVAL"})
_MANY: Final[dict[str, Callable[[Sequence[Any]], Any]]] = {
    "EXISTS": sum,
    "UNLINK": sum,
    "MGET": lambda replies: [value for reply in replies for value in reply],
}
"""Commands on keys of any slots, and how the replies to one command for each key are put together."""


class Piece(NamedTuple):
    """A part of a command that one node can carry out."""

    number: int
    """Which command it is of."""
    command: Command
    slot: int | None
    """None where any node will do."""


def slot(command: Command) -> int | None:
    """The slot of the first key of a command; None for one without keys."""
    if command[0] in _KEYLESS:
        return None
    key = command[3] if command[0] in _SCRIPT else command[1]
    return key_slot(key.encode() if isinstance(key, str) else bytes(key))


def pieces(commands: Sequence[Command]) -> Iterator[Piece]:
    """Every command, cut where its keys may be on several nodes."""
    for number, command in enumerate(commands):
        if command[0] in _MANY:
            for key in command[1:]:
                piece = (command[0], key)
                yield Piece(number, piece, slot(piece))
        else:
            yield Piece(number, command, slot(command))


def joined(command: Command, replies: Sequence[Any]) -> Any:
    """The reply to a command, of the replies to its pieces."""
    join = _MANY.get(str(command[0]))
    return replies[0] if join is None else join(replies)


def together(keys: Sequence[str], most: int) -> Iterator[list[int]]:
    """The places of keys that may go into one call: those of one slot, in groups of at most `most`."""
    by_slot: dict[int, list[int]] = {}
    for place, key in enumerate(keys):
        by_slot.setdefault(key_slot(key.encode()), []).append(place)
    for places in by_slot.values():
        for start in range(0, len(places), most):
            yield places[start : start + most]
