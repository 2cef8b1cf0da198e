"""Text for people: control characters escaped, so that no value controls a terminal or breaks a line; counts."""


def printable(text: str) -> str:
    """`text` with control characters escaped, on one line."""
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def counted(number: int, noun: str) -> str:
    """`1 key`, `2 keys`, `1,000 keys`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
