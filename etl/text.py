"""Text that cannot steer a terminal or break a line: values come from documents of others."""


def plain(text: str) -> str:
    """`text` on one line, its control characters as escapes."""
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
