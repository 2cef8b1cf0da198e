"""Commands in a Redis Cluster: the slot of each, and the splitting of those that span slots. Pure.

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
"""Commands whose keys may be in several slots, and the function that merges their replies per key."""


class Piece(NamedTuple):
    """The part of a command that goes to one node."""

    number: int
    """The index of the whole command."""
    command: Command
    slot: int | None
    """The slot of its keys; None if any node can execute it."""


def slot(command: Command) -> int | None:
    """The slot of the first key of a command; None for one without keys."""
    if command[0] in _KEYLESS:
        return None
    key = command[3] if command[0] in _SCRIPT else command[1]
    return key_slot(key.encode() if isinstance(key, str) else bytes(key))


def pieces(commands: Sequence[Command]) -> Iterator[Piece]:
    """Every command, split by key if its keys may be on several nodes."""
    for number, command in enumerate(commands):
        if command[0] in _MANY:
            for key in command[1:]:
                piece = (command[0], key)
                yield Piece(number, piece, slot(piece))
        else:
            yield Piece(number, command, slot(command))


def joined(command: Command, replies: Sequence[Any]) -> Any:
    """The reply to a command, merged from the replies to its pieces."""
    join = _MANY.get(str(command[0]))
    return replies[0] if join is None else join(replies)


def groups(keys: Sequence[str], size: int) -> Iterator[list[int]]:
    """The indices of the keys, in groups of at most `size` keys of one slot."""
    by_slot: dict[int, list[int]] = {}
    for place, key in enumerate(keys):
        by_slot.setdefault(key_slot(key.encode()), []).append(place)
    for places in by_slot.values():
        for start in range(0, len(places), size):
            yield places[start : start + size]
