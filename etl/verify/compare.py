"""What Redis holds against what it should hold: whether they differ, and how a person reads it. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from schemas.operations import Put

SURPLUS: Final = 16
"""So many members more than expected are read of a key, to show some of them; of a hash with more, none."""

_LONGEST: Final = 60


class Looked(NamedTuple):
    """One key of Redis as it was found: its type, milliseconds left (None: it stays), size and value.

    The value is None for types that no document fills, and for a hash far larger than it should be.
    """

    type: str
    ttl_ms: int | None
    size: int = 0
    value: Mapping[str, str] | Sequence[str] | None = None


def type_of(entry: Put) -> str:
    """The Redis type that an entry becomes."""
    return "hash" if isinstance(entry.value, Mapping) else "list"


def differences(entry: Put, looked: Looked, ttl: int | None) -> list[str]:
    """In what the key is not what the entry says, one line each; empty where it is true.

    `ttl` is the life of its family in seconds, None for one that stays.
    """
    if looked.type != type_of(entry):
        return [f"it is a {looked.type}, not a {type_of(entry)}"]
    found = list(_values(entry, looked))
    if ttl is not None and looked.ttl_ms is None:
        found.append(f"it has no TTL, and should have one of at most {ttl} s")
    if ttl is None and looked.ttl_ms is not None:
        found.append("it has a TTL, and should have none")
    return found


def _values(entry: Put, looked: Looked) -> Iterator[str]:
    if looked.value is None:
        yield f"it has {looked.size} fields, not {len(entry.value)}"
    elif isinstance(entry.value, Mapping) and isinstance(looked.value, Mapping):
        yield from _fields(entry.value, looked.value)
    elif [*entry.value] != [*looked.value]:
        yield from _members([*entry.value], [*looked.value], looked.size)


def _fields(wanted: Mapping[str, str], held: Mapping[str, str]) -> Iterator[str]:
    for name in wanted.keys() - held.keys():
        yield f"field {name} is missing, and should be {_short(wanted[name])}"
    for name in held.keys() - wanted.keys():
        yield f"field {_short(name)} is too many: {_short(held[name])}"
    for name in wanted.keys() & held.keys():
        if wanted[name] != held[name]:
            yield f"field {name} {_changed(wanted[name], held[name])}"


def _members(wanted: Sequence[str], held: Sequence[str], size: int) -> Iterator[str]:
    if sorted(wanted) == sorted(held):
        places = [place for place, pair in enumerate(zip(wanted, held, strict=True), 1) if len({*pair}) > 1]
        yield f"the members are right but in another order, from member {places[0]} on"
        return
    if size != len(wanted):
        yield f"it has {size} members, not {len(wanted)}"
    for place, (mine, other) in enumerate(zip(wanted, held, strict=False), 1):
        if mine != other:
            yield f"member {place} {_changed(mine, other)}"
            return


def _changed(wanted: str, held: str) -> str:
    """Both texts from a little before where they part, since long ones usually begin alike."""
    same = next((i for i, pair in enumerate(zip(wanted, held, strict=False)) if len({*pair}) > 1), None)
    start = max(0, (min(len(wanted), len(held)) if same is None else same) - _LONGEST // 3)
    return f"is {_short(held, start)}, and should be {_short(wanted, start)}"


def _short(text: str, start: int = 0) -> str:
    before, after = "…" if start else "", "…" if len(text) > start + _LONGEST else ""
    return f'"{before}{text[start : start + _LONGEST]}{after}"'
