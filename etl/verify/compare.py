"""Compares the content of a key with what it should be, and describes the difference; pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from etl.cache.inspector import Content
from schemas.operations import Put

_LONGEST: Final = 60


def type_of(write: Put) -> str:
    """The Redis type of the write."""
    return "hash" if isinstance(write.value, Mapping) else "list"


def differences(write: Put, content: Content, ttl: int | None) -> list[str]:
    """The differences of a key from its document, one line each; empty if it matches.

    Args:
        write: what the key should be.
        content: the key as it is.
        ttl: the TTL of its family in seconds, None for no TTL.
    """
    if content.type != type_of(write):
        return [f"it is a {content.type}, not a {type_of(write)}"]
    wanted = write.read
    found = [] if wanted == content.value else [*_values(wanted, content)]
    if ttl is not None and content.ttl_ms is None:
        found.append(f"it has no TTL, and should have one of at most {ttl} s")
    if ttl is None and content.ttl_ms is not None:
        found.append("it has a TTL, and should have none")
    return found


def _values(wanted: Mapping[str, str] | Sequence[str], content: Content) -> Iterator[str]:
    if content.value is None:
        yield f"it has {content.size} fields, not {len(wanted)}"
    elif isinstance(wanted, Mapping) and isinstance(content.value, Mapping):
        yield from _fields(wanted, content.value)
    else:
        yield from _members([*wanted], [*content.value], content.size)


def _fields(wanted: Mapping[str, str], held: Mapping[str, str]) -> Iterator[str]:
    for name in wanted.keys() - held.keys():
        yield f"field {name} is missing, and should be {_short(wanted[name])}"
    for name in held.keys() - wanted.keys():
        yield f"field {_short(name)} should not exist: {_short(held[name])}"
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
    """Both texts from shortly before their first difference, since long ones usually have a common start."""
    same = next((i for i, pair in enumerate(zip(wanted, held, strict=False)) if len({*pair}) > 1), None)
    start = max(0, (min(len(wanted), len(held)) if same is None else same) - _LONGEST // 3)
    return f"is {_short(held, start)}, and should be {_short(wanted, start)}"


def _short(text: str, start: int = 0) -> str:
    before, after = "…" if start else "", "…" if len(text) > start + _LONGEST else ""
    return f'"{before}{text[start : start + _LONGEST]}{after}"'
