"""Escaping of control characters: values from documents must not control a terminal or break a line."""


def printable(text: str) -> str:
    """`text` with control characters escaped, on one line."""
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
