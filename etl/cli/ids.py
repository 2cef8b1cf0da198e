"""The `_id` of a document as a person types it."""

import re
from contextlib import suppress

from bson import ObjectId

from schemas.ids import id_from_readable, id_text

_HEX = re.compile(r"[0-9a-fA-F]{24}")


def readings(words: str) -> list[str]:
    """What `words` may mean, the likeliest first, each as canonical Extended JSON.

    `ObjectId('…')`, 24 hex digits, Extended JSON such as `{"$uuid": "…"}` or `42`, or plain text.
    """
    values: list[object] = [words]
    with suppress(ValueError):
        values.insert(0, id_from_readable(words))
    if _HEX.fullmatch(words):
        values.insert(0, ObjectId(words))
    return [id_text(value) for value in values]
