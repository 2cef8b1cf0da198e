"""The `_id` of a document as typed on the command line."""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from decimal import Decimal, DecimalException
from typing import Any, Final
from uuid import UUID

import click
from bson import Binary, Decimal128, Int64, ObjectId, Regex
from bson.binary import UuidRepresentation

from schemas.bson_order import order
from schemas.codec import MalformedText
from schemas.ids import id_from_readable, id_from_text, id_text

_OBJECT_ID: Final = re.compile(r"(?:ObjectId\(['\"])?([0-9a-fA-F]{24})(?:['\"]\))?")
_UUID: Final = re.compile(
    r"(?:UUID\(['\"])?([0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12})(?:['\"]\))?"
)
_NUMBER: Final = re.compile(
    r"(?:(?:Number)?(?:Int|Int32|Long|Double|Decimal|Decimal128)\(['\"]?)?"
    r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?:['\"]?\))?"
)
_INT32: Final = 2**31
_INT64: Final = 2**63
_REPRESENTATIONS: Final = (
    UuidRepresentation.STANDARD,
    UuidRepresentation.PYTHON_LEGACY,
    UuidRepresentation.JAVA_LEGACY,
    UuidRepresentation.CSHARP_LEGACY,
)


def possible_ids(text: str) -> list[str]:
    """The possible `_id`s for `text`, the likeliest first, each as `id_text`.

    An ObjectId or a UUID, with or without its name around; a number, of any type that it may be stored as;
    Extended JSON such as `{"$date": "…"}`; or plain text.
    """
    return [*dict.fromkeys(map(id_text, (*_values(text), text)))]


def find(words: str, ids: Iterable[str]) -> str | None:
    """The `_id` among these (as `id_text`) that `words` stands for, compared as in MongoDB; None if there is none."""
    places = {}
    for text in ids:
        with suppress(MalformedText):
            places[text] = order(id_from_text(text))
    wanted = [order(id_from_text(text)) for text in possible_ids(words)]
    found = [text for text, place in places.items() if place in wanted]
    return min(found, key=lambda text: wanted.index(places[text]), default=None)


def _values(words: str) -> Iterator[Any]:
    if match := _OBJECT_ID.fullmatch(words):
        yield ObjectId(match[1])
    if match := _UUID.fullmatch(words):
        yield from (Binary.from_uuid(UUID(match[1]), kind) for kind in _REPRESENTATIONS)
    if match := _NUMBER.fullmatch(words):
        with suppress(DecimalException):  # an exponent of more than 18 digits
            yield from _numbers(match[1])
    with suppress(MalformedText):
        value = id_from_readable(words)
        if not _is_query(value):
            yield value


def _numbers(digits: str) -> Iterator[Any]:
    """The number in every type that can hold it: MongoDB treats them as the same `_id`."""
    number = Decimal(digits)
    if number == number.to_integral_value() and abs(number) < _INT64:
        if abs(number) < _INT32:
            yield int(number)
        yield Int64(int(number))
    if Decimal(float(number)) == number or "." in digits:
        yield float(number)
    with suppress(DecimalException):
        yield Decimal128(digits)


def _is_query(value: Any) -> bool:
    """Whether MongoDB would read the value as a condition, not as an `_id`."""
    if isinstance(value, dict):
        return any(name.startswith("$") for name in value)
    return isinstance(value, Regex | re.Pattern | list)


class IdCommand(click.Command):
    """A command with an ID argument, which may start with a dash."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does.

        Raises:
            UsageError: an option is unknown; where it may be an ID the message says how to type that.
        """
        given = [*args]  # click empties `args`
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if not re.match(r"-\d|-\.\d", error.option_name):
                raise
            dashed = next(arg for arg in given if arg.startswith(error.option_name))
            raise click.UsageError(
                f"an ID that begins with - comes after --, as in: -- {dashed}", ctx
            ) from None
