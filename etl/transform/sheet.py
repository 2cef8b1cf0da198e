"""A page after the transform: its outcomes in order, made when somebody asks for one.

Most pages are written as a whole, from what a worker has encoded, and nobody looks at their documents one
by one: to make outcomes of what has travelled took who writes longer than all else.
"""

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate, islice, pairwise
from typing import Any, Final, NamedTuple, overload

from etl.model.encoded import Draft, Encoded
from etl.model.outcome import Fill, Outcome, Row


class Sheet(Sequence[Outcome]):
    """The outcomes of one page, in the order of their positions.

    Args:
        length: how many they are.
        newest: the last one that has a date; what becomes of it may be left out.
        make: makes them all.
        encoded: the page as Redis takes it.
    """

    def __init__(
        self, length: int, newest: Outcome | None, make: Callable[[], Sequence[Outcome]], encoded: Encoded
    ) -> None:
        self.encoded: Final = encoded
        self._length = length
        self._newest = newest
        self._make = make
        self._made: Sequence[Outcome] | None = None

    @property
    def draft(self) -> Draft | None:
        """How it is written as a whole, where it can be."""
        return self.encoded.draft

    def newest(self, until: int | None = None) -> Outcome | None:
        """The last one that is dated, and no later than `until` (milliseconds since the epoch).

        What becomes of it may be left out.
        """
        last = self._newest
        if last is None or until is None or (last.ms or 0) <= until:
            return last
        return next((one for one in reversed(self) if one.ms is not None and one.ms <= until), None)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self._all())

    @overload
    def __getitem__(self, index: int) -> Outcome: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Outcome]: ...

    def __getitem__(self, index: int | slice) -> Outcome | Sequence[Outcome]:
        return self._all()[index]

    def _all(self) -> Sequence[Outcome]:
        if self._made is None:
            self._made = self._make()
        return self._made


def since(outcomes: Sequence[Outcome], ms: int) -> list[Outcome]:
    """Those dated from `ms` on (milliseconds since the epoch); a sheet that is older makes none for this."""
    if isinstance(outcomes, Sheet):
        newest = outcomes.newest()
        if newest is None or (newest.ms or 0) < ms:
            return []
    return [one for one in outcomes if one.ms is not None and one.ms >= ms]


def sheet(rows: Sequence[Row], encoded: Encoded) -> Sheet:
    """The sheet of rows that are here."""
    return Sheet(len(rows), _newest(rows), lambda: outcomes(rows), encoded)


def outcomes(rows: Iterable[Row]) -> list[Outcome]:
    """Outcomes of rows."""
    return [
        _outcome((text, ms, document_id, tuple(map(_fill, fills)), requests, lock, reject))
        for text, ms, document_id, fills, requests, lock, reject in rows
    ]


class Parcel(NamedTuple):
    """A sheet on its way from a worker: unpickled as far as who writes a page as a whole needs it."""

    length: int
    newest: Outcome | None
    columns: bytes
    """The rows by field, pickled apart; the commands of their fills are in `encoded`."""
    encoded: Encoded


def parcel(rows: Sequence[Row], encoded: Encoded) -> Parcel:
    """What of these rows travels."""
    columns: list[Any] = [*zip(*rows, strict=True)]
    if rows:
        columns[_FILLS] = [len(row[_FILLS]) for row in rows]
    fills = [fill for row in rows for fill in row[_FILLS]]
    keys, families, commands, lengths = zip(*fills, strict=True) if fills else _NONE
    columns.append((keys, families, [*map(len, commands)], lengths))
    return Parcel(len(rows), _newest(rows), pickle.dumps(columns, pickle.HIGHEST_PROTOCOL), encoded)


def unpacked(parcel: Parcel) -> Sheet:
    """The sheet that has travelled."""
    return Sheet(parcel.length, parcel.newest, partial(_outcomes, parcel), parcel.encoded)


def _outcomes(parcel: Parcel) -> list[Outcome]:
    *columns, (keys, families, sizes, lengths) = pickle.loads(parcel.columns)  # noqa: S301 (made by `parcel`)
    pieces = [parcel.encoded.fills.data[start:end] for start, end in pairwise(accumulate(sizes, initial=0))]
    fills = map(_fill, zip(keys, families, pieces, lengths, strict=True))
    if columns:
        columns[_FILLS] = [tuple(islice(fills, count)) for count in columns[_FILLS]]
    return [*map(_outcome, zip(*columns, strict=True))]


def _newest(rows: Sequence[Row]) -> Outcome | None:
    last = next((row for row in reversed(rows) if row[1] is not None), None)
    return None if last is None else Outcome(*last[:_FILLS])


_FILLS: Final = Outcome._fields.index("fills")
_NONE: Final[Sequence[Sequence[Any]]] = ((), (), (), ())

# What `_make` does, but not in Python: that took as long as all else a page costs who receives it.
_outcome: Callable[[Row], Outcome] = partial(tuple.__new__, Outcome)
_fill: Callable[[Row], Fill] = partial(tuple.__new__, Fill)
