"""A page as Redis takes it, encoded at once: by the worker that has transformed it, and not by who writes.

It reads rows by place, as they are tuples without names: `text, ms, id, fills, requests, lock, reject`, and
each fill `key, family, commands, length` (see `etl.model.outcome`).
"""

from collections import Counter
from collections.abc import Sequence

from etl.cache.resp import arguments, pairs
from etl.model.encoded import Draft, Encoded, Packed
from etl.model.outcome import Row


def encode(rows: Sequence[Row]) -> Encoded:
    """The encoded form of a page, given as outcomes or their rows."""
    claims = [fill for row in rows for fill in row[3]]
    keys = arguments(list(dict.fromkeys([fill[0] for fill in claims])))
    fills = Packed(b"".join([fill[2] for fill in claims]), sum([fill[3] for fill in claims]))
    return Encoded(
        keys=keys,
        fills=fills,
        documents=arguments([row[2] for row in rows]),
        locks=arguments(sorted({row[5] for row in rows} - {None})),
        draft=_draft(rows) if keys.length == len(claims) and _are_apart(rows) else None,
    )


def _are_apart(rows: Sequence[Row]) -> bool:
    """Whether each is a document of its own, and none asks for messages."""
    return len({row[2] for row in rows}) == len(rows) == [row[4] for row in rows].count(())


def _draft(rows: Sequence[Row]) -> Draft:
    claiming = [row for row in rows if row[3]]
    evicted = [sum([fill[3] for fill in row[3]]) for row in claiming].count(0)  # those without any command
    return Draft(
        owners=pairs([(fill[0], row[0]) for row in claiming for fill in row[3]]),
        filled=pairs([(row[2], " ".join([fill[0] for fill in row[3]])) for row in claiming]),
        valid=[row[6] for row in rows].count(None),
        written=len(claiming) - evicted,
        evicted=evicted,
        families=Counter([fill[1] for row in claiming for fill in row[3] if fill[2]]),
    )
