"""The types of document fields: accepted values, and their text.

JavaScript shells write every number as a double, so a whole double counts as a whole number. A number written as text
is refused: it would hide a mistake of the writer.
"""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from bson import Decimal128, Int64
from pydantic import Field, GetPydanticSchema, PlainValidator
from pydantic_core import CoreSchema, core_schema

from schemas.keys import canonical
from schemas.values import date_text, exact, json_text, number_text, text, unicode_text

# By exact type: a bool is an int to Python.
_NUMBERS = frozenset({int, Int64, float, Decimal128})
_LONGEST_INTEGER = 2**63
_ISO_8601 = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d([.,]\d+)?)?(Z|[+-]\d\d(:?\d\d)?)")


def _whole(value: Any) -> int:
    if type(value) is int:
        return value
    if type(value) not in _NUMBERS:
        raise ValueError("should be a whole number")
    number = exact(value)
    if abs(number) >= _LONGEST_INTEGER or number != number.to_integral_value():
        raise ValueError("should be a whole number of at most 64 bits")
    return int(number)


def _whole_text(value: Any) -> str:
    return str(_whole(value))


def _number_text(value: Any) -> str:
    if type(value) is float:
        return number_text(value)
    if type(value) not in _NUMBERS:
        raise ValueError("should be a number")
    return text(value)


def _date_text(value: Any) -> str:
    if isinstance(value, datetime):
        return date_text(value)
    if not isinstance(value, str) or not _ISO_8601.fullmatch(value):
        raise ValueError("should be a date that BSON and Python can hold, or ISO 8601 text with its offset")
    try:
        return date_text(datetime.fromisoformat(value))
    except (ValueError, OverflowError):
        raise ValueError("should be a date of the calendar, within the years 1 to 9999 of UTC") from None


def _plain_text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("should be text")
    return unicode_text(value)


def _limit_text(value: Any) -> str:
    return _plain_text(value) if isinstance(value, str) else _whole_text(value)


def _list_text(value: Any) -> str:
    if type(value) is not list:
        raise ValueError("should be a list")
    return json_text(value)


Name = Annotated[str, Field(strict=True, min_length=1)]
"""A field that names a key: text that is not empty."""

Params = Annotated[Any, PlainValidator(canonical)]
"""The parameters of a call, in the types that are hashed."""


def _mostly(common: CoreSchema, general: Callable[[Any], Any], problem: str) -> GetPydanticSchema:
    """Validate by `common` without running Python, in a quarter of the time; else by `general`."""
    rest = core_schema.no_info_plain_validator_function(general)
    union = core_schema.union_schema(
        [common, rest], mode="left_to_right", custom_error_type="field", custom_error_message=problem
    )
    return GetPydanticSchema(lambda _, __: union)


_INTEGER = core_schema.int_schema(strict=True, ge=-_LONGEST_INTEGER, lt=_LONGEST_INTEGER)
_INTEGER_TEXT = core_schema.chain_schema([_INTEGER, core_schema.str_schema(coerce_numbers_to_str=True)])
_WHOLE = "should be a whole number of at most 64 bits"

Whole = Annotated[int, _mostly(_INTEGER, _whole, _WHOLE)]
"""A whole number, kept as one."""

TextField = Annotated[str, PlainValidator(_plain_text)]
"""Text."""

JsonText = Annotated[str, Field(strict=True)]
"""Text inside JSON: the JSON encoder refuses lone surrogates, so no check is needed here."""

WholeField = Annotated[str, _mostly(_INTEGER_TEXT, _whole_text, _WHOLE)]
"""A whole number: a count."""

NumberField = Annotated[str, PlainValidator(_number_text)]
"""Any number: money, an average."""

DateField = Annotated[str, PlainValidator(_date_text)]
"""A BSON date, or ISO 8601 text with its offset from UTC."""

LimitField = Annotated[str, PlainValidator(_limit_text)]
"""A limit: text such as `500/minuto`, or a whole number."""

ListField = Annotated[str, PlainValidator(_list_text)]
"""A list of anything."""

AnyField = Annotated[str, PlainValidator(text)]
"""Any value, null too."""
